"""Tests of the guard: Adam at the side of a rule. All hold on every Keras backend."""

import keras
import numpy as np
import pytest
from keras import ops

from l2l_keras import Guard, LearnedOptimizer, ObserveLoss
from tests.contract.harness import (
    BACKEND,
    RULES,
    GradientDescent,
    assert_close,
    fit,
    load_strictly,
    make_gradients,
    make_variables,
    numpy,
    regression_model,
    tensors,
)

# Where losses do not reach the optimizer by themselves.
CALLBACKS = [ObserveLoss()] if BACKEND == "jax" else []


def destructive(**arguments):
    """Goes up, and fast."""
    return LearnedOptimizer(GradientDescent(-5.0), **arguments)


def data(count=512):
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 3)).astype("float32")
    y = np.sin(x @ np.array([[1.0], [-2.0], [0.5]], "float32"))
    return x, (y + 0.1 * random.normal(size=y.shape)).astype("float32")


def losses(optimizer, epochs=8, callbacks=CALLBACKS, **arguments):
    """Losses of epochs, each of 32 steps."""
    model = regression_model(optimizer, **arguments)
    if not isinstance(optimizer, LearnedOptimizer):
        callbacks = []
    history = model.fit(*data(), batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks)
    return history.history["loss"]


def apply_with_losses(optimizer, variables, steps, loss=lambda step: 1.0):
    for step in range(steps):
        optimizer.observe_loss(ops.convert_to_tensor(np.float32(loss(step))))
        optimizer.apply(tensors(make_gradients(step)), variables)


class TestHarm:
    def test_a_destructive_rule_ends_no_worse_than_adam(self):
        adam = losses(keras.optimizers.Adam())[-1]
        optimizer = destructive(guard=True, runaway_factor=None)
        assert losses(optimizer)[-1] <= 1.1 * adam
        report = optimizer.guard_report
        assert report["adam leads"] and report["rescues"] >= 1
        assert report["adam steps"] >= 0.9 * report["steps"]
        without = losses(destructive(runaway_factor=None))[-1]
        assert not without <= 100.0 * adam

    def test_after_a_rescue_weights_are_what_they_were(self):
        """However far they have been: not what is left of a difference."""
        optimizer = destructive(guard=True, runaway_factor=None, learning_rate=1e12)
        variables = make_variables()
        before = numpy(variables)
        apply_with_losses(optimizer, variables, 1)
        assert max(np.abs(v).max() for v in numpy(variables)) > 1e11
        apply_with_losses(optimizer, variables, 2, lambda step: 1e30)
        assert optimizer.guard_report["rescues"] == 1
        for value, expected in zip(numpy(variables), before, strict=True):
            np.testing.assert_array_equal(value, expected)
        assert all(np.all(s == 0.0) for s in numpy([optimizer.state_of(v) for v in variables]))

    def test_then_adam_makes_up_for_lost_steps_and_goes_on_as_keras_has_it(self):
        optimizer, variables = destructive(guard=Guard(0.01), runaway_factor=None), make_variables()
        apply_with_losses(optimizer, variables, 3, lambda step: 100.0**step)
        assert optimizer.guard_report["rescues"] == 1
        expected = [keras.Variable(value) for value in numpy(variables)]
        adam = keras.optimizers.Adam(0.01)
        for step in range(6):
            adam.learning_rate = 0.02 if step < 3 else 0.01
            adam.apply(tensors(make_gradients(step)), expected)
        apply_with_losses(optimizer, variables, 6)
        assert_close(variables, numpy(expected))


class TestGoodRules:
    def test_they_step_as_without_a_guard(self):
        guarded, plain = make_variables(), make_variables()
        apply_with_losses(
            LearnedOptimizer(RULES["log_sign_lstm"](), guard=True), guarded, 10, lambda k: 0.9**k
        )
        without = LearnedOptimizer(RULES["log_sign_lstm"]())
        for step in range(10):
            without.apply(tensors(make_gradients(step)), plain)
        assert_close(guarded, numpy(plain))

    def test_they_keep_leading(self):
        """Here, gradient descent, which is far ahead of Adam."""
        optimizer = LearnedOptimizer(GradientDescent(0.1), guard=True)
        without = losses(LearnedOptimizer(GradientDescent(0.1)), callbacks=[])
        assert losses(optimizer)[-1] <= 1.02 * without[-1] <= 0.8 * losses("adam")[-1]
        assert not optimizer.guard_report["adam leads"]


class TestTheEndOfTraining:
    """In a trial of Adam's, which begins after eight steps of a rule that makes no progress."""

    @pytest.mark.parametrize(
        ("loss", "steps", "adam_leads"),
        [(1.1, 3, False), (0.9, 3, False), (0.9, 6, True)],
        ids=["worse", "early", "better"],
    )
    def test_weights_are_the_winners(self, loss, steps, adam_leads):
        optimizer, variables = LearnedOptimizer(GradientDescent(), guard=True), make_variables()
        apply_with_losses(optimizer, variables, 8)
        plain, of_the_rule = LearnedOptimizer(GradientDescent()), make_variables()
        apply_with_losses(plain, of_the_rule, 8)
        apply_with_losses(optimizer, variables, steps, lambda _: loss)
        assert optimizer.guard_report["trials"] == 1
        expected = numpy(variables if adam_leads else of_the_rule)
        for _ in range(2):  # There is nothing to do the second time.
            optimizer.finalize_variable_values(variables)
            for value, end in zip(numpy(variables), expected, strict=True):
                np.testing.assert_array_equal(value, end)
        assert optimizer.guard_report["adam leads"] == adam_leads

    def test_training_goes_on_from_them(self):
        """In a period of the rule's, and Adam's moments begin anew."""
        optimizer, variables = LearnedOptimizer(GradientDescent(), guard=True), make_variables()
        apply_with_losses(optimizer, variables, 8)
        apply_with_losses(optimizer, variables, 3, lambda _: 1.1)
        optimizer.finalize_variable_values(variables)
        moments = [v for v in optimizer.variables if v.name.startswith(("momentum", "velocity"))]
        assert len(moments) == 2 * len(variables)
        assert all(np.all(moment == 0.0) for moment in numpy(moments))
        expected, plain = make_variables(), LearnedOptimizer(GradientDescent())
        for new, value in zip(expected, numpy(variables), strict=True):
            new.assign(value)
        apply_with_losses(plain, expected, 4)
        apply_with_losses(optimizer, variables, 4)
        assert_close(variables, numpy(expected))

    @pytest.mark.parametrize("steps", [3, 40])
    def test_elsewhere_nothing_changes(self, steps):
        optimizer, variables = LearnedOptimizer(GradientDescent(), guard=True), make_variables()
        apply_with_losses(optimizer, variables, steps, lambda step: 0.9**step)
        before = numpy([*variables, *optimizer.variables])
        optimizer.finalize_variable_values(variables)
        for value, old in zip(numpy([*variables, *optimizer.variables]), before, strict=True):
            np.testing.assert_array_equal(value, old)

    def test_fit_ends_with_them(self):
        steps = 10
        x, y = (np.repeat(array, 16 * steps, axis=0) for array in data(1))

        def fitted(rows, guard):
            model = regression_model(LearnedOptimizer(GradientDescent(1e-5), guard=guard))
            model.fit(
                x[:rows],
                y[:rows],
                16,
                shuffle=False,
                verbose=0,
                callbacks=CALLBACKS if guard else [],
            )
            return model

        guarded = fitted(16 * steps, True)
        of_adam = guarded.optimizer.guard_report["adam steps"]
        assert of_adam in (1, 2)  # Where a callback shows losses, they are late by one step.
        plain = fitted(16 * (steps - of_adam), None)
        assert_close(guarded.trainable_variables, numpy(plain.trainable_variables))


class TestWhereNoLossIsSeen:
    def test_updates_are_limited(self):
        guard = Guard(learning_rate=0.001, largest_update=10.0)
        optimizer, variables = destructive(guard=guard, runaway_factor=None), make_variables()
        before = numpy(variables)
        optimizer.apply(tensors(make_gradients(0)), variables)
        for value, old in zip(numpy(variables), before, strict=True):
            size = np.sqrt(np.mean((value - old) ** 2))
            assert size == pytest.approx(0.01, rel=1e-3)
        assert optimizer.guard_report["steps"] == 0

    def test_small_ones_are_not(self):
        guarded, plain = make_variables(), make_variables()
        for variables, arguments in ((guarded, {"guard": True}), (plain, {})):
            optimizer = LearnedOptimizer(GradientDescent(1e-3), **arguments)
            for step in range(3):
                optimizer.apply(tensors(make_gradients(step)), variables)
        assert_close(guarded, numpy(plain))


class TestLosses:
    def test_the_callback_shows_them_under_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_float16")
        try:
            optimizer = destructive(guard=True, runaway_factor=None)
            losses(optimizer, 2, [ObserveLoss()])
        finally:
            keras.config.set_dtype_policy("float32")
        assert optimizer.guard_report["rescues"] >= 1

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="Others have one way to train.")
    @pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": True}])
    def test_they_are_seen_however_steps_are_compiled(self, mode):
        optimizer = destructive(guard=True, runaway_factor=None)
        losses(optimizer, 1, **mode)
        assert optimizer.guard_report["rescues"] >= 1

    def test_of_several_between_two_steps_the_mean_counts(self):
        """A sum would be far above the first."""
        optimizer, variables = LearnedOptimizer(GradientDescent(1e-3), guard=True), make_variables()
        for step in range(6):
            for _ in range(1 if step == 0 else 10):
                optimizer.observe_loss(1.0)
            optimizer.apply(tensors(make_gradients(step)), variables)
        assert optimizer.guard_report["steps"] == 6
        assert optimizer.guard_report["rescues"] == 0

    def test_of_accumulated_gradients_the_mean_counts(self):
        if BACKEND == "jax":
            pytest.skip("Conditions cannot assign.")
        optimizer = LearnedOptimizer(
            GradientDescent(1e-3), guard=True, gradient_accumulation_steps=4
        )
        losses(optimizer, 1)
        assert optimizer.guard_report["steps"] == 8


class TestSaving:
    def test_training_goes_on_where_it_was(self, tmp_path):
        def model():
            return regression_model(destructive(guard=Guard(3e-3), runaway_factor=None))

        def trained(model, steps):
            return fit(model, steps, callbacks=CALLBACKS)

        whole = trained(model(), 24)
        first = model()
        trained(first, 10)
        first.save(tmp_path / "model.keras")
        again = load_strictly(tmp_path / "model.keras")
        assert again.optimizer.guard.learning_rate == 3e-3
        assert again.optimizer.guard_report["steps"] > 0
        np.testing.assert_allclose(trained(again, 14), whole[10:], rtol=1e-4)

    def test_there_need_not_be_one(self):
        config = LearnedOptimizer(GradientDescent(), guard=False).get_config()
        assert LearnedOptimizer.from_config(config).guard is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0.0}, "`learning_rate` must be .*Received: [a-z_0-9]+=0.0"),
        ({"beta_1": 1.0}, "`beta_1` must be .*Received: [a-z_0-9]+=1.0"),
        ({"beta_2": -0.1}, "`beta_2` must be .*Received: [a-z_0-9]+=-0.1"),
        ({"epsilon": 0.0}, "`epsilon` must be .*Received: [a-z_0-9]+=0.0"),
        ({"largest_update": float("nan")}, "`largest_update` must be .*Received: [a-z_0-9]+=nan"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Guard(**arguments)


def test_anything_but_a_guard_is_refused():
    with pytest.raises(ValueError, match="`guard` must be .*Received: guard='adam'"):
        LearnedOptimizer(GradientDescent(), guard="adam")


def test_without_a_guard_there_is_nothing_to_report():
    with pytest.raises(ValueError, match="Received: guard=None"):
        LearnedOptimizer(GradientDescent()).guard_report  # noqa: B018


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
