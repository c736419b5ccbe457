"""Tests of the commands that meta-train the rules of figures."""

import shlex

import pytest

from l2l_keras import presets, reproduction
from l2l_keras.reproduction import recipes
from l2l_keras.reproduction.sizes import FULL, SMALL

SHIPPED = {
    training.name: training
    for name in reproduction.names()
    for training in reproduction.get(name).trainings
    if training.preset
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_was_made_by_the_command_of_its_recipe(name):
    training = SHIPPED[name]
    command, *arguments = shlex.split(presets.list_presets()[training.preset]["command"])
    assert command == "l2l-meta-train"
    # Where pictures and weights lie is another matter on every machine; 64 is the default size.
    of_places = ("content_dir", "style", "weights", "preprocessing", "size=64")
    places = tuple(f"--task_option={option}" for option in of_places)
    made, recipe = (
        {flag for flag in flags if not flag.startswith(places)}
        for flags in (arguments, training.arguments)
    )
    assert made == recipe


def test_a_small_training_reads_no_data():
    full = {training.name: training for training in recipes.mnist(FULL) + recipes.convnet(FULL)}
    small = {training.name: training for training in recipes.mnist(SMALL) + recipes.convnet(SMALL)}
    assert full.keys() == small.keys()
    assert all(training.reads_data for training in full.values())
    assert not any(training.reads_data for training in small.values())


def test_lstm_sub_never_sees_the_labels_that_it_is_tested_on():
    _, sub = recipes.convnet(FULL)
    (labels,) = [flag for flag in sub.arguments if "labels" in flag]
    assert labels == "--task_option=labels=(5, 6, 7, 8, 9)"
    for evaluation in reproduction.get("cifar").evaluations:
        if "labels" in " ".join(evaluation.arguments):
            (tested,) = [flag for flag in evaluation.arguments if "labels" in flag]
            assert not set(tested) & set("56789")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
