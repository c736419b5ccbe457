"""The contract catches optimizers that break it: each is broken in one way that people have met."""

import keras
import pytest
from keras import ops

from l2l_keras import LearnedOptimizer
from tests.contract import saving_clauses, training_clauses, update_clauses
from tests.contract.harness import BACKEND, CLAUSES, RULES

MODULES = (saving_clauses, training_clauses, update_clauses)
BROKEN = {}


def breaks(*clauses):
    """Registers a broken optimizer with the clauses that must notice."""

    def register(cls):
        for clause in clauses:
            BROKEN[f"{cls.__name__}-{clause}"] = (cls, clause)
        return keras.saving.register_keras_serializable(package="l2l_keras_tests")(cls)

    return register


@breaks("the_learning_rate_is_a_factor_of_updates", "callbacks_change_the_learning_rate")
class DeafToTheLearningRate(LearnedOptimizer):
    def update_variables(self, gradients, variables, learning_rate):
        super().update_variables(gradients, variables, 1.0)


@breaks("gradients_are_clipped_before_the_rule_sees_them")
class Unclipped(LearnedOptimizer):
    def _clip_gradients(self, grads):
        return grads


@breaks("weight_decay_is_taken_off_before_the_update")
class DecaysWithoutTheLearningRate(LearnedOptimizer):
    def _apply_weight_decay(self, variables):
        if self.weight_decay:
            for variable in variables:
                variable.assign(variable * (1.0 - self.weight_decay))


@breaks("a_missing_gradient_leaves_variable_and_state_alone")
class ZeroForMissing(LearnedOptimizer):
    def _filter_empty_gradients(self, grads, vars):
        super()._filter_empty_gradients(grads, vars)
        zeros = [ops.zeros(v.shape) if g is None else g for g, v in zip(grads, vars, strict=True)]
        return zeros, vars


@breaks("variables_come_in_any_order_and_number")
class TakesVariablesInItsOwnOrder(LearnedOptimizer):
    def update_variables(self, gradients, variables, learning_rate):
        super().update_variables(gradients, sorted(variables, key=self.index_of), learning_rate)


@breaks("building_twice_builds_once")
class BuildsAgain(LearnedOptimizer):
    def build(self, variables):
        self.built = False
        super().build(variables)


@breaks(
    "non_finite_gradients_change_nothing", "runaway_gradients_are_skipped_until_they_prove_usual"
)
class Unguarded(LearnedOptimizer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._safeguards = []


@breaks("a_configuration_gives_the_same_optimizer", "keras_serializes_it_by_its_registered_name")
class ForgetsTheWeightsOfItsRule(LearnedOptimizer):
    @classmethod
    def from_config(cls, config, custom_objects=None):
        optimizer = super().from_config(config, custom_objects)
        fresh = type(optimizer.rule).from_config(optimizer.rule.get_config())
        optimizer.rule.set_weights(fresh.get_weights())
        return optimizer


@breaks("a_saved_model_resumes_bit_for_bit", "weights_alone_resume_in_another_optimizer")
class ForgetsItsState(LearnedOptimizer):
    def save_own_variables(self, store):
        for i, variable in enumerate(self.variables):
            kept = not variable.path.split("/")[-1].startswith("state")
            store[str(i)] = ops.convert_to_numpy(variable) * kept


@breaks("steps_are_computed_in_float32")
class RoundsGradients(LearnedOptimizer):
    """Rounds gradients as a variable's type would, and lets them overflow."""

    def update_variables(self, gradients, variables, learning_rate):
        rounded = [ops.cast(ops.cast(g, "bfloat16") * 1.01, "float32") for g in gradients]
        super().update_variables(rounded, variables, learning_rate)


@breaks("eager_graph_and_xla_agree")
class CountsInPython(LearnedOptimizer):
    """Counts steps with an attribute: a graph sees the first value for ever."""

    count = 0

    def update_variables(self, gradients, variables, learning_rate):
        self.count += 1
        super().update_variables(gradients, variables, learning_rate / self.count)


@breaks("gradients_are_accumulated")
class SumsInsteadOfAveraging(LearnedOptimizer):
    def update_variables(self, gradients, variables, learning_rate):
        steps = self.gradient_accumulation_steps or 1
        super().update_variables([steps * g for g in gradients], variables, learning_rate)


@breaks("a_variable_overwritten_with_its_gradient_has_no_state")
class StateForAll(LearnedOptimizer):
    def build(self, variables):
        for variable in variables:
            variable.overwrite_with_gradient = False
        super().build(variables)


@breaks("repeated_rows_of_a_sparse_gradient_are_summed_first")
class DropsRepeatedRows(LearnedOptimizer):
    def update_variables(self, gradients, variables, learning_rate):
        dense = [
            ops.scatter_update(ops.zeros((5, 2)), ops.expand_dims(g.indices, 1), g.values)
            if hasattr(g, "dense_shape")
            else g
            for g in gradients
        ]
        super().update_variables(dense, variables, learning_rate)


@breaks("a_strategy_mirrors_rule_and_state")
class KeepsStateOutsideOfTheStrategy(LearnedOptimizer):
    def add_variable(self, *args, **kwargs):
        variable = super().add_variable(*args, **kwargs)
        if "/state_" in variable.path and hasattr(variable.value, "values"):
            variable._value = variable.value.values[0]  # Of the copies, one for each replica.
        return variable


@pytest.mark.parametrize("name", BROKEN)
def test_broken_optimizer_is_caught(name):
    cls, clause = BROKEN[name]
    check, backends, *_ = CLAUSES[clause]
    if BACKEND not in backends or (BACKEND == "torch" and cls is CountsInPython):
        pytest.skip(f"Cannot be broken in this way on {BACKEND}.")
    # By an assertion of the clause, not by an error of the double itself.
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(lambda **arguments: cls(RULES["rnnprop"](), **arguments))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
