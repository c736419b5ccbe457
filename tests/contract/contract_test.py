"""Every rule honours every clause of the contract, on the backend of this process.

Clauses about Keras' plumbing run for two rules, and for all of them in the slow run.
"""

import itertools

import pytest

from tests.contract import saving_clauses, training_clauses, update_clauses
from tests.contract.harness import BACKEND, CLAUSES, OPTIONS, RULES, make_with

# Importing these modules registers their clauses.
MODULES = (saving_clauses, training_clauses, update_clauses)
TWO_RULES = ("momentum_lstm", "tensorwise_lstm")
# A clause that a rule, or an optimizer with an option, cannot honour, and why.
UNFIT = {
    ("states_in_bfloat16_follow_those_in_float32", "ntm_bfgs"): (
        "It subtracts gradients of successive steps, of which rounding leaves little."
    ),
    ("the_graph_holds_one_rule_however_many_variables_there_are", "records"): (
        "A cosine is a product, for each variable."
    ),
    ("a_saved_model_is_little_larger_than_state_and_weights", "guard"): (
        "It keeps three numbers for each weight besides the rule's."
    ),
}


def cases():
    """All clauses for the rules to which they apply."""
    for clause, (_, backends, elementwise, arithmetic) in CLAUSES.items():
        for rule, make in RULES.items():
            if BACKEND in backends and (make().scope == "element" or not elementwise):
                marks = () if arithmetic or rule in TWO_RULES else (pytest.mark.slow,)
                yield pytest.param(clause, rule, marks=marks)


def cases_with_options():
    """All clauses with all options and a rule that compiles quickly; more in the slow run."""
    rules, options = ("gradient_descent", "tensorwise_lstm"), ("+".join(OPTIONS), *OPTIONS)
    for clause, rule, option in itertools.product(CLAUSES, rules, options):
        _, backends, elementwise, _ = CLAUSES[clause]
        if BACKEND in backends and (RULES[rule]().scope == "element" or not elementwise):
            marks = () if (rule, option) == (rules[0], options[0]) else (pytest.mark.slow,)
            yield pytest.param(clause, rule, option, marks=marks)


def check(clause, rule, *options):
    for fact in (rule, *options):
        if (clause, fact) in UNFIT:
            pytest.skip(UNFIT[clause, fact])
    CLAUSES[clause].check(make_with(rule, options))


@pytest.mark.parametrize(("clause", "rule"), list(cases()))
def test_clause(clause, rule):
    check(clause, rule)


@pytest.mark.parametrize(("clause", "rule", "options"), list(cases_with_options()))
def test_clause_with_options(clause, rule, options):
    check(clause, rule, *options.split("+"))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
