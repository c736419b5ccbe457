"""Tests of the callbacks of meta-training."""

import keras
import numpy as np
import pytest

from l2l_keras.meta import (
    Backtrack,
    Backup,
    Curriculum,
    KeepBest,
    MetaModel,
    Progress,
    Windows,
    adam,
)
from l2l_keras.progress import duration
from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.tasks import Quadratic

pytestmark = pytest.mark.usefixtures("eagerly")


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


def make_model(horizon=6):
    rule = CoordinatewiseLSTM((3,), "none", seed=0)
    model = MetaModel(rule, Quadratic(2, 3), horizon=horizon, windows=Windows(unroll=3))
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
        model, keep_best, spoil = make_model(), KeepBest(monitor), Spoil(epoch=2)
        values = fit(model, keep_best, spoil, epochs=4)[monitor]
        best = int(np.argmin(values))
        # It got better, and then it was spoiled.
        assert best == 1
        assert equal(model.rule.get_weights(), spoil.weights[best])
        assert keep_best.best_value == pytest.approx(values[best], rel=1e-6)

    def test_the_best_weights_outlast_a_call_of_fit(self):
        model, keep_best = make_model(), KeepBest()
        first = fit(model, keep_best)["val_final_loss"]
        best = model.rule.get_weights()
        second = fit(model, keep_best, Spoil(epoch=0), epochs=1)["val_final_loss"]
        assert min(second) > min(first)
        assert equal(model.rule.get_weights(), best)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite_are_never_the_best(self, value):
        model, keep_best = make_model(), KeepBest()
        keep_best.set_model(model)
        keep_best.on_test_end({"final_loss": value})
        model.rule.set_weights([w + 1.0 for w in model.rule.get_weights()])
        expected = model.rule.get_weights()
        keep_best.restore()  # There is nothing to restore.
        assert equal(model.rule.get_weights(), expected)

    def test_averaged_weights_are_kept_if_those_are_validated(self):
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
    def test_the_monitored_quantity_must_be_logged(self, monitor, episodes):
        with pytest.raises(ValueError, match=f"needs '{monitor}'.*Received: .*'loss'"):
            fit(make_model(), KeepBest(monitor), validation_episodes=episodes)


class SpoilAll(keras.callbacks.Callback):
    """Notes all that meta-training changes after every epoch, and spoils it before one of them."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch
        self.states, self.rates = [], []

    def variables(self):
        optimizer = self.model.optimizer
        own = [v for v in optimizer.variables if v is not optimizer.iterations]
        return [*self.model.rule.weights, *own]

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            for variable in self.variables():
                variable.assign(variable + 3.0)

    def on_epoch_end(self, epoch, logs=None):
        self.states.append([keras.ops.convert_to_numpy(v).copy() for v in self.variables()])
        self.rates.append(float(self.model.optimizer.learning_rate))


class TestBacktrack:
    UPDATES = 100

    def run(self, spoiled, epochs, model=None, folder=None, **options):
        model = model or make_model()
        keep_best = KeepBest()
        backtrack = Backtrack(keep_best, **options)
        model.compile(adam(1e-3, self.UPDATES, ema_momentum=0.5, factor=backtrack.factor))
        spoil, averaging = SpoilAll(spoiled), keras.callbacks.SwapEMAWeights()
        kept = {"keep_best": keep_best, "backtrack": backtrack}
        backups = [] if folder is None else [Backup(folder, **kept)]
        done = backups[0].restore(model) if backups else 0
        callbacks = [keep_best, averaging, backtrack, spoil, *backups]
        history = fit(model, *callbacks, epochs=epochs, initial_epoch=done)
        return history["val_final_loss"], spoil, int(model.optimizer.iterations)

    def rate(self, updates):
        return 1e-3 * (0.01 + 0.99 * 0.5 * (1.0 + np.cos(np.pi * updates / self.UPDATES)))

    def test_it_goes_back_to_the_best_epoch_and_halves_the_rate(self):
        values, spoil, updates = self.run(spoiled=2, epochs=4)
        assert values[1] < values[0] and values[2] > 1.3 * values[1]
        assert equal(spoil.states[2], spoil.states[1])
        # The epoch after it is not spoiled, and the number of steps goes on.
        assert values[3] < 1.3 * values[1] and updates == 12
        expected = [self.rate(3), self.rate(6), self.rate(9) / 2, self.rate(12) / 2]
        assert spoil.rates == pytest.approx(expected, rel=1e-5)

    def test_it_goes_back_to_where_it_began(self):
        model = make_model()
        before = [w.copy() for w in model.rule.get_weights()]
        keep_best = KeepBest()
        keep_best.state["best_value"] = 1e-9  # As of a preset that is hard to better.
        backtrack = Backtrack(keep_best, cut=0.1)
        model.compile(adam(1e-3, 9, factor=backtrack.factor))
        fit(model, backtrack, epochs=2)
        assert equal(model.rule.get_weights(), before)
        assert float(backtrack.factor) == pytest.approx(0.01)

    def test_a_value_that_is_a_little_worse_is_tolerated(self):
        values, spoil, _ = self.run(spoiled=2, epochs=3, tolerance=1e6)
        assert values[2] > 1.3 * values[1]
        assert not equal(spoil.states[2], spoil.states[1])
        assert spoil.rates[2] == pytest.approx(self.rate(9), rel=1e-5)

    @pytest.mark.parametrize("interrupted_after", [1, 2, 3])
    def test_an_interrupted_run_goes_back_as_well(self, interrupted_after, tmp_path):
        _, whole, _ = self.run(spoiled=2, epochs=4)
        _, first, _ = self.run(spoiled=2, epochs=interrupted_after, folder=tmp_path)
        _, second, _ = self.run(spoiled=2, epochs=4, folder=tmp_path)
        for states, expected in zip([*first.states, *second.states], whole.states, strict=True):
            assert equal(states, expected)
        assert [*first.rates, *second.rates] == whole.rates

    @pytest.mark.parametrize(
        ("value", "best", "factor"),
        [(-0.9, -1.0, 1.0), (-0.6, -1.0, 0.5), (float("nan"), 1.0, 0.5), (1.2, 1.0, 1.0)],
    )
    def test_losses_may_have_any_sign(self, value, best, factor):
        model, keep_best = make_model(), KeepBest()
        keep_best.state["best_value"] = best
        backtrack = Backtrack(keep_best)
        backtrack.set_model(model)
        backtrack.on_train_begin()
        backtrack.on_epoch_end(0, {"val_final_loss": value})
        assert float(backtrack.factor) == factor

    @pytest.mark.parametrize("options", [{"tolerance": 0.0}, {"cut": 1.0}, {"cut": 0.0}])
    def test_wrong_arguments_are_refused(self, options):
        with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be"):
            Backtrack(KeepBest(), **options)


class TestCurriculum:
    def run(self, values):
        """The model, and the longest horizon and the weights after epochs of given losses."""
        model = make_model(horizon=(3, 12))
        keep_best = KeepBest()
        curriculum = Curriculum([3, 6, 12], keep_best)
        keep_best.set_model(model)
        curriculum.set_model(model)
        curriculum.on_train_begin()
        model.optimizer.iterations.assign(1)
        horizons, weights = [int(model.longest_horizon)], []
        for epoch, value in enumerate(values):
            model.rule.set_weights([w + 1.0 for w in model.rule.get_weights()])
            keep_best.on_test_end({"final_loss": value})
            curriculum.on_epoch_end(epoch, {"val_final_loss": value})
            horizons.append(int(model.longest_horizon))
            weights.append(model.rule.get_weights()[0][0, 0])
        return model, horizons, np.array(weights) - (weights[0] if weights else 0.0)

    def test_horizons_become_longer_when_the_rule_stops_improving(self):
        _, horizons, weights = self.run([3.0, 2.0, 2.1, 1.9, 2.0, 2.1, 1.8, 1.9, 1.9, 1.9, 1.9])
        assert horizons == [3, 3, 3, 3, 3, 3, 6, 6, 6, 12, 12, 12]
        np.testing.assert_allclose(weights, np.arange(11), rtol=1e-5)

    @pytest.mark.parametrize("bad", [3.1, float("nan"), float("inf")])
    def test_much_worse_weights_are_replaced_by_the_best(self, bad):
        _, horizons, weights = self.run([3.0, 2.0, bad, 2.9])
        np.testing.assert_allclose(weights, [0, 1, 1, 2], rtol=1e-5)
        assert horizons == [3, 3, 3, 3, 6]

    def test_a_resumed_run_keeps_its_horizons(self):
        model, _, _ = self.run([1.0, 1.0, 1.1, 1.1])
        again = Curriculum([3, 6, 12], KeepBest())
        again.set_model(model)
        again.on_train_begin()
        assert int(model.longest_horizon) == 6

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"horizons": []}, "`horizons` must be positive and in increasing order"),
            ({"horizons": [6, 3]}, r"increasing order. Received: horizons=\[6, 3\]"),
            ({"horizons": [3], "patience": 0}, "Received: patience=0"),
            ({"horizons": [3], "tolerance": 0.0}, "tolerance=0.0"),
        ],
    )
    def test_wrong_arguments_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Curriculum(**arguments, keep_best=KeepBest())


class TestBackup:
    def test_a_run_resumes_with_the_state_of_its_callbacks(self, tmp_path):
        """To every bit, and also if the process ends while a backup is written."""

        def run(folder, model, epochs, spoil=None):
            keep_best, progress = KeepBest(), Progress(lambda line: None)
            curriculum = Curriculum([3, 6, 12], keep_best, patience=1)
            backup = Backup(folder, keep_best=keep_best, curriculum=curriculum, progress=progress)
            done = backup.restore(model)
            seconds = progress.seconds
            last = Spoil(spoil)
            callbacks = (last, keep_best, curriculum, progress, backup)
            fit(model, *callbacks, epochs=epochs, initial_epoch=done)
            assert progress.seconds > seconds
            weights = [*last.weights[-1], *model.rule.get_weights()]
            return done, seconds, [*weights, keep_best.best_value, curriculum.state["waited"]]

        assert run(tmp_path / "a", make_model((3, 12)), epochs=2)[:2] == (0, 0.0)
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["000000002.weights.h5"]
        (tmp_path / "a" / "unfinished.weights.h5").write_bytes(b"half")
        done, seconds, resumed = run(tmp_path / "a", make_model((3, 12)), epochs=5, spoil=2)
        assert done == 2
        assert seconds > 0.0
        _, _, whole = run(tmp_path / "b", make_model((3, 12)), epochs=5, spoil=2)
        assert equal(resumed, whole)
        # The best weights are those of before the interruption.
        assert not np.array_equal(whole[0], whole[3])

    def test_without_a_backup_nothing_is_done(self, tmp_path):
        model = make_model()
        before = model.rule.get_weights()
        (tmp_path / "unfinished.weights.h5").write_bytes(b"half")
        assert Backup(tmp_path).restore(model) == 0
        assert equal(model.rule.get_weights(), before)

    def test_a_backup_must_hold_all_callbacks(self, tmp_path):
        model = make_model()
        fit(model, Backup(tmp_path), epochs=1, windows=1, validation_episodes=0)
        with pytest.raises(ValueError, match=r"Received: a backup of \[\], which lacks \['best'\]"):
            Backup(tmp_path, best=KeepBest()).restore(model)


class TestProgress:
    def test_every_epoch_has_a_line_with_the_time_left(self):
        model, lines = make_model(), []
        history = fit(model, Progress(lines.append), epochs=2)
        for epoch, line in enumerate(lines):
            position, loss, mean, final, times = line.split("  ")
            assert position == f"epoch {epoch + 1}/2"
            assert loss == f"meta-loss {history['loss'][epoch]:.4g}"
            assert mean == f"validation: mean loss {history['val_loss'][epoch]:.4g}"
            assert final == f"final loss {history['val_final_loss'][epoch]:.4g}"
            assert times.endswith(" left")
        assert lines[1].endswith(", 0 s left")
        # Without validation, and with skipped windows.
        model.skipped.assign(7)
        fit(model, Progress(lines.append), epochs=1, validation_episodes=0)
        position, loss, skipped, _ = lines[2].split("  ")
        assert (position, skipped) == ("epoch 1/1", "7 windows skipped")

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (3599.7, "1 h 00 min"),
            (7500, "2 h 05 min"),
        ],
    )
    def test_durations_have_two_units(self, seconds, text):
        assert duration(seconds) == text


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
