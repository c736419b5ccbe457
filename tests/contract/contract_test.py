"""Every rule honours every clause of the contract, on the backend of this process.

Clauses about Keras' plumbing run for two rules, and for all of them in the slow run.
"""

import pytest

from l2l_keras import LearnedOptimizer
from tests.contract import saving_clauses, training_clauses, update_clauses
from tests.contract.harness import BACKEND, CLAUSES, RULES

# Importing these modules registers their clauses.
MODULES = (saving_clauses, training_clauses, update_clauses)
TWO_RULES = ("momentum_lstm", "tensorwise_lstm")
# A clause that a rule cannot honour, and why.
UNFIT = {
    ("states_in_bfloat16_follow_those_in_float32", "ntm_bfgs"): (
        "It subtracts gradients of successive steps, of which rounding leaves little."
    )
}


def cases():
    """All clauses for the rules to which they apply."""
    for clause, (_, backends, elementwise, arithmetic) in CLAUSES.items():
        for rule, make in RULES.items():
            if BACKEND in backends and (make().scope == "element" or not elementwise):
                marks = () if arithmetic or rule in TWO_RULES else (pytest.mark.slow,)
                yield pytest.param(clause, rule, marks=marks)


@pytest.mark.parametrize(("clause", "rule"), list(cases()))
def test_clause(clause, rule):
    if (clause, rule) in UNFIT:
        pytest.skip(UNFIT[clause, rule])
    CLAUSES[clause].check(lambda **arguments: LearnedOptimizer(RULES[rule](), **arguments))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
