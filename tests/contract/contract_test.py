"""Every rule honours every clause of the contract, on the backend of this process."""

import pytest

from l2l_keras import LearnedOptimizer
from tests.contract import saving_clauses, training_clauses, update_clauses
from tests.contract.harness import BACKEND, CLAUSES, RULES

# All of the clauses are registered by their modules.
MODULES = (saving_clauses, training_clauses, update_clauses)
# A clause that a rule cannot honour, and why.
UNFIT = {
    ("states_in_bfloat16_follow_those_in_float32", "ntm_bfgs"): (
        "It subtracts gradients of successive steps, of which rounding leaves little."
    )
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("clause", CLAUSES)
def test_clause(clause, rule):
    check, backends, coupled = CLAUSES[clause]
    if BACKEND not in backends:
        pytest.skip(f"Not on {BACKEND}.")
    if RULES[rule]().coupled and not coupled:
        pytest.skip("Not of coupled rules.")
    if (clause, rule) in UNFIT:
        pytest.skip(UNFIT[clause, rule])
    check(lambda **arguments: LearnedOptimizer(RULES[rule](), **arguments))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
