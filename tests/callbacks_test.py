"""Tests of diagnostics, of the optimizer and of its callbacks, on every Keras backend."""

import keras
import numpy as np
import pytest

from l2l_keras import Diagnostics, LearnedOptimizer, ObserveLoss, SkippedSteps
from l2l_keras.rules import MomentumLSTM, TensorwiseLSTM
from tests.contract.harness import (
    BACKEND,
    RULES,
    GradientDescent,
    make_gradients,
    make_variables,
    numpy,
    regression_data,
    regression_model,
    tensors,
    train,
)


def fit(optimizer, *callbacks, epochs=3):
    model = regression_model(optimizer)
    x, y = regression_data()
    model.fit(x, y, batch_size=2, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


class TestUpdates:
    def test_norm_and_angle_are_recorded(self):
        optimizer = LearnedOptimizer(GradientDescent(0.5), 0.1, record_updates=True)
        variables = train(optimizer)
        seen = optimizer.diagnose()
        assert list(seen) == [variable.path for variable in variables]
        for numbers, gradient in zip(seen.values(), make_gradients(2), strict=True):
            assert numbers["update norm"] == pytest.approx(
                0.05 * np.linalg.norm(gradient), rel=1e-5
            )
            assert numbers["cosine with descent"] == pytest.approx(1.0, rel=1e-5)

    def test_uphill_is_the_opposite(self):
        optimizer = LearnedOptimizer(GradientDescent(-0.5), record_updates=True)
        train(optimizer)
        for numbers in optimizer.diagnose().values():
            assert numbers["cosine with descent"] == pytest.approx(-1.0, rel=1e-5)

    def test_variables_without_a_gradient_keep_the_last_ones(self):
        optimizer = LearnedOptimizer(GradientDescent(0.5), record_updates=True)
        variables = train(optimizer)
        before = list(optimizer.diagnose().values())
        optimizer.apply(tensors([10.0 * g for g in make_gradients(2)[:2]]), variables[:2])
        after = list(optimizer.diagnose().values())
        assert after[2:] == before[2:]
        assert after[0]["update norm"] == pytest.approx(10.0 * before[0]["update norm"], rel=1e-4)

    def test_recording_does_not_change_updates(self):
        plain = train(LearnedOptimizer(RULES["tensorwise_lstm"]()))
        recorded = train(LearnedOptimizer(RULES["tensorwise_lstm"](), record_updates=True))
        for a, b in zip(numpy(plain), numpy(recorded), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


class TestStates:
    def test_a_tensorwise_rule_has_a_step_size_for_each_variable(self):
        optimizer = LearnedOptimizer(TensorwiseLSTM(4, seed=0))
        optimizer.build(make_variables())
        sizes = {numbers["step size"] for numbers in optimizer.diagnose().values()}
        assert len(sizes) == 1
        assert sizes.pop() == pytest.approx(3e-3 * np.exp(-1.0), rel=1e-5)
        optimizer = LearnedOptimizer(TensorwiseLSTM(4, seed=0))
        train(optimizer)
        assert len({numbers["step size"] for numbers in optimizer.diagnose().values()}) > 1

    @pytest.mark.parametrize("rule", [MomentumLSTM((3, 2), seed=0), TensorwiseLSTM(5, seed=0)])
    def test_saturated_cells_are_counted(self, rule):
        if isinstance(rule, TensorwiseLSTM):
            state = np.zeros((rule.tensor_rows, 1), "float32")
            state[5:7] = [[3.0], [-3.0]]
            share = 2 / 5
        else:
            state = np.zeros((sum(rule.state_rows), 4), "float32")
            state[:3] = 9.0  # Hidden, not cells.
            state[3, :2] = -2.5
            state[8, 0] = 2.5
            share = 3 / 20
        assert float(rule.diagnose(state)["saturated cells"]) == pytest.approx(share)

    def test_rules_may_have_no_diagnostics(self):
        optimizer = LearnedOptimizer(GradientDescent())
        train(optimizer)
        assert set(map(len, optimizer.diagnose().values())) == {0}

    def test_diagnostics_need_variables(self):
        with pytest.raises(ValueError, match="Diagnostics need an optimizer that has been built"):
            LearnedOptimizer(GradientDescent()).diagnose()


class TestCallback:
    @pytest.mark.parametrize(("frequency", "batches"), [("epoch", [4, 8, 12]), (5, [5, 10])])
    def test_numbers_of_several_times_are_kept(self, frequency, batches):
        optimizer = LearnedOptimizer(TensorwiseLSTM(4, seed=0), guard=True, record_updates=True)
        diagnostics = Diagnostics(update_freq=frequency)
        model = fit(optimizer, diagnostics)
        assert [time for time, _ in diagnostics.history] == batches
        first, last = diagnostics.history[0][1], diagnostics.history[-1][1]
        names = {
            f"{name}/{v.path}"
            for v in model.trainable_variables
            for name in ("update norm", "cosine with descent", "step size", "saturated cells")
        }
        assert names | {"skipped steps", "guard/rescues", "guard/adam leads"} <= set(last)
        assert all(np.isfinite(number) for number in last.values())
        assert any(first[name] != last[name] for name in names if "step size" in name)

    def test_tensorboard_shows_them(self, tmp_path):
        if BACKEND == "torch":
            pytest.skip("TensorFlow, which writes, is not imported beside it.")
        optimizer = LearnedOptimizer(TensorwiseLSTM(4, seed=0))
        diagnostics = Diagnostics(tmp_path)
        fit(optimizer, diagnostics)
        (file,) = tmp_path.iterdir()
        import tensorflow as tf

        seen = {
            (value.tag, event.step): float(tf.make_ndarray(value.tensor))
            for event in tf.compat.v1.train.summary_iterator(str(file))
            for value in event.summary.value
        }
        for batches, numbers in diagnostics.history:
            for name, number in numbers.items():
                assert seen[name, batches] == pytest.approx(number, rel=1e-6)

    @pytest.mark.parametrize("callback", [Diagnostics, ObserveLoss, SkippedSteps])
    def test_other_optimizers_are_refused(self, callback):
        with pytest.raises(ValueError, match="`LearnedOptimizer`. Received: optimizer=<.*Adam"):
            fit(keras.optimizers.Adam(), callback())

    @pytest.mark.parametrize("frequency", [0, -1, "batch", 1.5])
    def test_wrong_frequencies_are_refused(self, frequency):
        with pytest.raises(ValueError, match="`update_freq` must be .*Received"):
            Diagnostics(update_freq=frequency)


def test_it_is_saved_whether_to_record():
    config = LearnedOptimizer(GradientDescent(), record_updates=True).get_config()
    again = keras.optimizers.deserialize(
        keras.optimizers.serialize(LearnedOptimizer.from_config(config))
    )
    assert again.record_updates


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
