"""Tests of the callbacks of meta-training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.meta import Backup, Curriculum, KeepBest, MetaModel, Progress
from l2l_keras.meta.callbacks import duration
from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.tasks import Quadratic


@pytest.fixture(autouse=True)
def eagerly():
    """Without compilation, which would take most of the time."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Spoil(keras.callbacks.Callback):
    """Notes the rule's weights after every epoch, and spoils the rule before one of them."""

    def __init__(self, epoch=None):
        super().__init__()
        self.epoch = epoch
        self.weights = []

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.rule.set_weights([w + 3.0 for w in self.model.rule.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.rule.get_weights())


class Notes(keras.callbacks.Callback):
    """Notes the rule's weights after every update, and those that are validated."""

    def __init__(self):
        super().__init__()
        self.trained = []
        self.validated = []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self.model.rule.get_weights())

    def on_test_end(self, logs=None):
        self.validated.append(self.model.rule.get_weights())


def make_model():
    rule = CoordinatewiseLSTM((3,), "none", seed=0)
    model = MetaModel(rule, Quadratic(2, 3), horizon=6, unroll=3)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def fit(model, *callbacks, epochs=3, **arguments):
    arguments = {"windows": 3, "validation_episodes": 2, "verbose": 0, **arguments}
    return model.fit(epochs=epochs, callbacks=list(callbacks), **arguments).history


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class TestKeepBest:
    @pytest.mark.parametrize("monitor", ["val_final_loss", "val_loss"])
    def test_the_rule_ends_with_the_weights_of_its_best_epoch(self, monitor):
        model, spoil = make_model(), Spoil(epoch=2)
        values = fit(model, KeepBest(monitor), spoil, epochs=4)[monitor]
        best = int(np.argmin(values))
        # It got better, and then it was spoiled.
        assert best == 1
        assert equal(model.rule.get_weights(), spoil.weights[best])
        assert equal([w.numpy() for w in model.best_weights], spoil.weights[best])
        assert float(model.best_value) == pytest.approx(values[best], rel=1e-6)

    def test_it_goes_on_from_an_earlier_fit(self):
        model = make_model()
        first = fit(model, KeepBest())["val_final_loss"]
        best = model.rule.get_weights()
        second = fit(model, KeepBest(), Spoil(epoch=0), epochs=1)["val_final_loss"]
        assert min(second) > min(first)
        assert equal(model.rule.get_weights(), best)

    def test_values_that_are_not_finite_are_never_the_best(self):
        model = make_model()
        start = model.rule.get_weights()
        assert not model.keep_best(float("nan"))
        assert not model.keep_best(float("inf"))
        model.rule.set_weights([w + 1.0 for w in start])
        model.restore_best()  # There is nothing to restore.
        assert equal(model.rule.get_weights(), [w + 1.0 for w in start])
        assert model.keep_best(2.0)
        assert not model.keep_best(2.0)
        assert model.keep_best(1.0)

    def test_averaged_weights_are_kept_where_those_are_validated(self):
        model, notes = make_model(), Notes()
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.8))
        averaging = keras.callbacks.SwapEMAWeights()
        values = fit(model, notes, KeepBest(), averaging, windows=1)["val_final_loss"]
        first, *others = notes.trained
        averages = [first]
        for weights in others:
            pairs = zip(averages[-1], weights, strict=True)
            averages.append([0.8 * average + 0.2 * weight for average, weight in pairs])
        for validated, average in zip(notes.validated, averages, strict=True):
            for actual, expected in zip(validated, average, strict=True):
                np.testing.assert_allclose(actual, expected, atol=1e-6)
        assert not np.allclose(notes.trained[-1][0], averages[-1][0], atol=1e-5)
        assert equal(model.rule.get_weights(), notes.validated[int(np.argmin(values))])

    @pytest.mark.parametrize(("monitor", "episodes"), [("val_final_loss", 0), ("val_accuracy", 1)])
    def test_what_is_not_logged_cannot_be_monitored(self, monitor, episodes):
        with pytest.raises(ValueError, match=f"needs '{monitor}'.*Received: .*'loss'"):
            fit(make_model(), KeepBest(monitor), validation_episodes=episodes)


class TestCurriculum:
    def run(self, values, **arguments):
        """The longest horizon and the weights after every epoch, given validation losses."""
        model = MetaModel(
            CoordinatewiseLSTM((3,), "none", seed=0), Quadratic(2, 3), horizon=(3, 12), unroll=3
        )
        model.compile(keras.optimizers.Adam(1e-2))
        curriculum = Curriculum([3, 6, 12], **arguments)
        curriculum.set_model(model)
        curriculum.on_train_begin()
        model.optimizer.iterations.assign(1)
        horizons, weights = [int(model.longest_horizon)], []
        for epoch, value in enumerate(values):
            model.rule.set_weights([w + 1.0 for w in model.rule.get_weights()])
            model.keep_best(value)
            curriculum.on_epoch_end(epoch, {"val_final_loss": value})
            horizons.append(int(model.longest_horizon))
            weights.append(model.rule.get_weights()[0][0, 0])
        return model, horizons, np.array(weights) - (weights[0] if weights else 0.0)

    def test_horizons_become_longer_when_nothing_is_learned_any_more(self):
        _, horizons, weights = self.run([3.0, 2.0, 2.1, 1.9, 2.0, 2.1, 1.8, 1.9, 1.9, 1.9, 1.9])
        assert horizons == [3, 3, 3, 3, 3, 3, 6, 6, 6, 12, 12, 12]
        np.testing.assert_allclose(weights, np.arange(11), rtol=1e-5)

    @pytest.mark.parametrize("bad", [3.1, float("nan"), float("inf")])
    def test_weights_that_have_become_much_worse_are_given_up(self, bad):
        _, horizons, weights = self.run([3.0, 2.0, bad, 2.9])
        np.testing.assert_allclose(weights, [0, 1, 1, 2], rtol=1e-5)
        assert horizons == [3, 3, 3, 3, 6]

    def test_what_resumes_does_not_begin_anew(self):
        model, _, _ = self.run([1.0, 1.0, 1.1, 1.1])
        again = Curriculum([3, 6, 12])
        again.set_model(model)
        again.on_train_begin()
        assert int(model.longest_horizon) == 6

    def test_episodes_are_no_longer_than_it_says(self):
        model, _, _ = self.run([])
        horizons = []
        for _ in range(20):
            model._begin(model._episodes[0])
            horizons.append(int(model._episodes[0]._horizon))
        assert set(horizons) == {3}

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"horizons": []}, "`horizons` must be positive and in increasing order"),
            ({"horizons": [6, 3]}, r"increasing order. Received: \[6, 3\]"),
            ({"horizons": [3], "patience": 0}, "Received: patience=0"),
            ({"horizons": [3], "tolerance": 0.0}, "tolerance=0.0"),
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Curriculum(**arguments)


class TestBackup:
    def test_an_interrupted_backup_leaves_the_one_before(self, tmp_path, monkeypatch):
        model = make_model()
        backup = Backup(tmp_path)
        fit(model, backup, epochs=2)
        expected = model.rule.get_weights()

        def half_written(path):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr(model, "save_weights", half_written)
        with pytest.raises(KeyboardInterrupt):
            fit(model, backup, initial_epoch=2)
        other = make_model()
        assert not equal(other.rule.get_weights(), expected)
        assert Backup(tmp_path).restore(other) == 2
        assert equal(other.rule.get_weights(), expected)

    def test_without_one_there_is_nothing_done(self, tmp_path):
        model = make_model()
        before = model.rule.get_weights()
        (tmp_path / "unfinished.weights.h5").write_bytes(b"half")
        assert Backup(tmp_path).restore(model) == 0
        assert equal(model.rule.get_weights(), before)

    def test_only_the_last_one_is_kept(self, tmp_path):
        fit(make_model(), Backup(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["000000003.weights.h5"]


class TestProgress:
    def test_every_epoch_has_a_line_with_the_time_left(self):
        model, lines = make_model(), []
        history = fit(model, Progress(lines.append))
        assert len(lines) == 3
        for epoch, line in enumerate(lines):
            position, loss, mean, final, times = line.split("  ")
            assert position == f"epoch {epoch + 1}/3"
            assert loss == f"meta-loss {history['loss'][epoch]:.4g}"
            assert mean == f"validation: mean loss {history['val_loss'][epoch]:.4g}"
            assert final == f"final loss {history['val_final_loss'][epoch]:.4g}"
            assert times.endswith(" left")
        assert lines[-1].endswith(", 0 s left")

    def test_without_validation_there_are_no_validation_losses(self):
        lines = []
        fit(make_model(), Progress(lines.append), epochs=1, validation_episodes=0)
        assert "meta-loss" in lines[0]
        assert "validation" not in lines[0]
        assert "final" not in lines[0]

    def test_skipped_windows_are_said(self):
        model, lines = make_model(), []
        model.skipped.assign(7)
        fit(model, Progress(lines.append), epochs=1)
        assert "  7 windows skipped  " in lines[0]

    def test_it_keeps_the_clock_over_all_parts_of_a_run(self):
        model, lines = make_model(), []
        fit(model, Progress(lines.append), epochs=1)
        first = float(model.seconds)
        assert first > 0
        fit(model, Progress(lines.append), epochs=3, initial_epoch=1)
        assert float(model.seconds) > first
        assert [line.split("  ")[0] for line in lines] == ["epoch 1/1", "epoch 2/3", "epoch 3/3"]

    def test_lines_are_printed_by_default(self, capsys):
        fit(make_model(), Progress(), epochs=1)
        assert capsys.readouterr().out.startswith("epoch 1/1  meta-loss ")

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.4, "0 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (61, "1 min 01 s"),
            (3599.7, "1 h 00 min"),
            (7500, "2 h 05 min"),
        ],
    )
    def test_times_are_written_as_people_say_them(self, seconds, text):
        assert duration(seconds) == text


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
