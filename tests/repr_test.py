"""Tests of how public objects are shown in a notebook or an error message: in a line or two."""

import keras
import pytest

import l2l_keras
from l2l_keras import meta, rules, studies, tasks
from tests.evaluation import comparisons
from tests.studies import outcomes

RULE = rules.CoordinatewiseLSTM(units=(3,), output_scale=0.2, seed=0)
QUADRATIC = tasks.Quadratic(dimension=3, functions=4)


class OwnRule(rules.UpdateRule):
    """A rule that has its own configuration, and no attributes of its arguments' names."""

    state_rows = ()

    def __init__(self, rate=1.0, size=2):
        super().__init__()
        self._rate = rate
        self.size = size

    def step(self, gradient, state):
        return -self._rate * gradient, ()

    def get_config(self):
        return {"rate": self._rate, "size": self.size}


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        (RULE, "CoordinatewiseLSTM(units=(3,), output_scale=0.2, seed=0)"),
        (rules.RNNprop(name="own"), "RNNprop()"),
        (OwnRule(rate=2.0, size=3), "OwnRule(size=3)"),
        (l2l_keras.Guard(learning_rate=1e-4), "Guard(learning_rate=0.0001)"),
        (
            l2l_keras.LearnedOptimizer({"bias": keras.optimizers.Adam(), ".*": RULE}, guard=True),
            "<LearnedOptimizer of 'bias': Adam, CoordinatewiseLSTM, learning_rate=1, with guard>",
        ),
        (meta.BackPropagation(), "BackPropagation()"),
        (meta.Imitation(0.01), "Imitation(learning_rate=0.01)"),
        (meta.PersistentEvolution(2), "PersistentEvolution(pairs=2)"),
        (QUADRATIC, "<Quadratic 'quadratic' of 12 parameters>"),
        (outcomes.line(), "<KerasTask 'line' of 2 parameters>"),
        (
            tasks.Mixture({"a": QUADRATIC, "b": QUADRATIC}, {"c": QUADRATIC}, name="both"),
            "<Mixture 'both' of 2 training and 1 validation tasks>",
        ),
        (
            meta.MetaModel(RULE, QUADRATIC, horizon=20),
            "<MetaModel of CoordinatewiseLSTM on 'quadratic', horizon=20>",
        ),
        (
            meta.MetaModel(RULE, QUADRATIC, horizon=(20, 100)),
            "<MetaModel of CoordinatewiseLSTM on 'quadratic', horizon=(20, 100)>",
        ),
        (
            outcomes.problem("line", 0.25).comparison,
            "<Comparison on 'line', final losses after 100 steps: specialised 0.25, "
            "specialised, with guard 0.25, general-fast 0.275, general-fast, cosine 0.2625, "
            "Adam 0.2, SGD 0.4>",
        ),
        (
            studies.Plan(outcomes.line(), 50, {"wide": outcomes.line()}),
            "Plan(task=<KerasTask 'line' of 2 parameters>, steps=50, "
            "targets={'wide': <KerasTask 'line' of 2 parameters>})",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_thing_is_shown_by_what_matters(thing, shown):
    assert repr(thing) == shown


@pytest.mark.parametrize(
    "thing",
    [
        l2l_keras.LearnedOptimizer.from_preset("cifar_convnet"),
        l2l_keras.presets.load_preset("general")[0],
        comparisons.make_result("lstm", 0.3, comparisons.INSIDE),
        comparisons.diverged(),
        outcomes.result("Adam", 0.1),
        outcomes.outcome(outcomes.problem("line", 0.1), outcomes.problem("other", 0.1)),
        meta.Windows(),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_has_many_parts_is_not_shown_whole(thing):
    assert len(repr(thing)) < 900
    assert " object at 0x" not in repr(thing)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
