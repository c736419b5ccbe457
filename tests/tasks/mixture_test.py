"""Tests of mixtures of tasks."""

import pytest

from l2l_keras.tasks import Mixture, Quadratic


def test_training_tasks_are_the_default_validation_tasks():
    task = Quadratic()
    mixture = Mixture({"a": task}, name="mine")
    assert mixture.validation == {"a": task}
    assert (mixture.name, mixture.size) == ("mine", task.size)


def test_mixtures_need_tasks():
    for wrong in ({}, {"a": 1}):
        with pytest.raises(ValueError, match="`members` must be a dictionary of one task or more"):
            Mixture(wrong)
    with pytest.raises(ValueError, match="`validation` must be a dictionary"):
        Mixture({"a": Quadratic()}, {})


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
