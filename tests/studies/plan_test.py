"""Tests of plans, and of the files that hold them."""

import keras
import numpy as np
import pytest

from l2l_keras.studies import Plan, Target, load
from l2l_keras.studies.plan import fingerprint
from l2l_keras.tasks import KerasTask, Quadratic
from tests.studies.outcomes import line


def test_problems_begin_with_the_representative_one():
    wide, long = line(), Target(line(), steps=50)
    plan = Plan(line(name="small"), 10, {"wide": wide, "long": long})
    assert list(plan.problems) == ["small", "wide", "long"]
    assert plan.problems["wide"].task is wide and plan.problems["long"] is long
    assert [plan.steps_of(name) for name in plan.problems] == [10, 10, 50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "`steps` must be positive"),
        ({"targets": {"line": line()}}, "must not have the name of the representative problem"),
        ({"targets": {"../line": line()}}, r"Names of problems .* Received: '\.\./line'"),
        ({"targets": {"..": line()}}, r"Names of problems .* Received: '\.\.'"),
        ({"targets": {"quadratic": Quadratic()}}, "hold examples out.* Received: 'quadratic'"),
        ({"task": Quadratic()}, "hold examples out.* Received: 'quadratic'"),
    ],
)
def test_wrong_ones_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Plan(**{"task": line(), "steps": 10, **arguments})


class TestFingerprint:
    def test_the_same_problem_has_the_same(self):
        assert fingerprint(line()) == fingerprint(line(name="another"))

    @pytest.mark.parametrize("change", [{"slope": 2.0}, {"batch_size": 11}])
    def test_other_data_and_batches_have_others(self, change):
        assert fingerprint(line(**change)) != fingerprint(line())

    def test_another_model_has_another(self):
        x = np.random.default_rng(0).normal(size=(200, 1)).astype("float32")

        def task(**options):
            def model_fn():
                return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, **options)])

            return KerasTask(model_fn, "mse", (x, x), batch_size=10)

        assert fingerprint(task()) != fingerprint(task(kernel_initializer="he_normal"))

    def test_strings_count_by_their_letters(self):
        def task(texts):
            vectorize = keras.layers.TextVectorization(
                vocabulary=["a", "b"], output_sequence_length=2
            )

            def model_fn():
                layers = [
                    keras.layers.Embedding(4, 2),
                    keras.layers.Flatten(),
                    keras.layers.Dense(1),
                ]
                return keras.Sequential([keras.Input((2,), dtype="int64"), *layers])

            y = np.zeros((len(texts), 1), "float32")
            transform = lambda x, y: (vectorize(x), y)  # noqa: E731
            return KerasTask(model_fn, "mse", (np.array(texts), y), 10, transform)

        first, second = ["a b"] * 40, ["b a"] * 40
        assert fingerprint(task(first)) == fingerprint(task(list(first)))
        assert fingerprint(task(first)) != fingerprint(task(second))


FILE = """
from l2l_keras.studies import Plan
from tests.studies.outcomes import line

def make_plan():
    return Plan(line(), 10)

def other():
    return 3
"""


def test_files_have_a_function_that_makes_one(tmp_path):
    path = tmp_path / "study.py"
    path.write_text(FILE)
    assert load(str(path)).steps == load(f"{path}:make_plan").steps == 10
    with pytest.raises(ValueError, match=r"must return an l2l_keras.studies.Plan. Received: int"):
        load(f"{path}:other")
    with pytest.raises(ValueError, match="with one of its functions: make_plan, other"):
        load(f"{path}:make_plans")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
