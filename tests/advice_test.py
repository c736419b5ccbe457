"""Tests of warnings and errors that answer what new users try first, on every Keras backend."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from l2l_keras import LearnedOptimizer
from tests.contract.harness import regression_data, regression_model, tensors

CosineDecay = keras.optimizers.schedules.CosineDecay


def optimizer(**arguments):
    return LearnedOptimizer.from_preset("general-fast", **arguments)


@pytest.fixture(name="no_warning")
def no_warning_fixture():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


class TestSchedules:
    @pytest.fixture(name="preset")
    def preset_fixture(self, tmp_path):
        card = {"schedule": "cosine", "horizon": 300}
        optimizer().save_to_preset(tmp_path / "preset", card)
        return tmp_path / "preset"

    @pytest.mark.parametrize("arguments", [{}, {"learning_rate": 2.0}])
    def test_a_preset_that_was_trained_with_one_asks_for_it(self, preset, arguments):
        with pytest.warns(UserWarning, match="that falls.*CosineDecay\\(1.0, 300\\)"):
            LearnedOptimizer.from_preset(preset, **arguments)

    def test_it_is_content_with_any(self, preset, no_warning):
        LearnedOptimizer.from_preset(preset, learning_rate=CosineDecay(1.0, 100))


class TestRates:
    @pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2, CosineDecay(1e-3, 1000)])
    def test_those_of_adam_draw_a_warning(self, rate):
        with pytest.warns(UserWarning, match="times smaller.*CosineDecay\\(1.0, steps\\)"):
            optimizer(learning_rate=rate)

    def test_so_do_they_afterwards(self):
        own = optimizer()
        with pytest.warns(UserWarning, match="makes them 1,000 times smaller"):
            own.learning_rate = 0.001

    def test_a_schedule_that_warms_up_is_judged_by_its_largest_value(self, no_warning):
        optimizer(learning_rate=CosineDecay(0.0, 1000, warmup_target=1.0, warmup_steps=100))

    @pytest.mark.parametrize("rate", [0.1, 1.0, CosineDecay(1.0, 1000)])
    def test_own_ones_draw_none(self, rate, no_warning):
        optimizer(learning_rate=rate)

    def test_callbacks_may_lower_them(self, no_warning):
        own = optimizer()
        own.build([keras.Variable(np.ones((2, 2), "float32"))])
        own.learning_rate = 0.001


class TestWeightDecay:
    def test_that_of_adamw_draws_a_warning(self):
        with pytest.warns(UserWarning, match=r"0.4 % off all weights in each step.* pass 4e-06"):
            optimizer(weight_decay=0.004)

    def test_a_thousandth_draws_none(self, no_warning):
        optimizer(weight_decay=4e-6)


def test_skipped_steps_draw_a_warning_at_the_end_of_fit_without_a_callback():
    x, y = regression_data()
    x[0] = np.nan
    model = regression_model(optimizer())
    with pytest.warns(UserWarning, match="3 of 3 steps were skipped.*`guard=True`"):
        model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)


@pytest.mark.parametrize("guard", [True, False])
def test_repr_names_preset_rate_and_guard(guard):
    text = repr(optimizer(guard=guard, learning_rate=0.5))
    assert text.startswith("<LearnedOptimizer of ") and "TensorwiseLSTM" in text
    assert text.endswith(f"learning_rate=0.5, {'with' if guard else 'without'} guard>")


@pytest.mark.parametrize(
    "gradient", [np.ones((5, 8), "float32"), np.ones((8, 5), "complex64")], ids=["shape", "complex"]
)
def test_gradients_of_something_else_are_refused(gradient):
    variable = keras.Variable(np.zeros((8, 5), "float32"))
    with pytest.raises(ValueError, match=r"of shape \(8, 5\) must be real.*Received"):
        optimizer().apply([ops.convert_to_tensor(gradient)], [variable])


@pytest.mark.parametrize("name", [None, 1])
def test_no_preset_is_answered_in_one_line(name):
    with pytest.raises(ValueError, match=f"must be a name or a path. Received: {name}"):
        LearnedOptimizer.from_preset(name)


def test_weights_without_a_gradient_stay(no_warning):
    variables = [keras.Variable(np.ones((3, 3), "float32")) for _ in range(2)]
    own = optimizer()
    for _ in range(3):
        own.apply(tensors([np.ones((3, 3)), np.zeros((3, 3))]), variables)
    np.testing.assert_array_equal(variables[1], np.ones((3, 3)))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
