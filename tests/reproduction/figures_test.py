"""Tests of the table of figures: its commands can be typed, and its stages belong together."""

import pytest

from l2l_keras import reproduction
from l2l_keras.scripts import evaluate, meta_train

ALL = [(name, small) for name in reproduction.names() for small in (False, True)]


def parse(script, arguments):
    """Parses flags as the script does, and returns their values by name."""
    for name in script.FLAGS:
        script.FLAGS[name].unparse()
    assert script.FLAGS(["l2l", *arguments]) == ["l2l"]
    return {name: script.FLAGS[name].value for name in script.FLAGS}


@pytest.mark.parametrize("name, small", ALL)
def test_commands_can_be_parsed(name, small, tmp_path):
    figure = reproduction.get(name, small)
    workshop = reproduction.Workshop(tmp_path, {}, ["--nodownload"], ["--threads=1"])
    for stage in (*figure.trainings, *figure.evaluations):
        command, *arguments = workshop.command(stage)
        script = {"l2l-meta-train": meta_train, "l2l-evaluate": evaluate}[command]
        values = parse(script, arguments)
        assert values["output_dir"] == str(workshop.place(stage))
        # Without it, the default folder would be read, or data downloaded.
        # The small variant's part of the general mixture is generated.
        stored = {"cifar_convnet", "mnist_mlp"} | (set() if small else {"general"})
        assert stage.reads_data == (values["task"] in stored)
        assert not (small and stage.reads_data)


@pytest.mark.parametrize("name, small", ALL)
def test_evaluations_are_of_the_figures_own_trainings(name, small):
    figure = reproduction.get(name, small)
    names = {training.name for training in figure.trainings}
    assert all(names.issuperset(evaluation.trainings) for evaluation in figure.evaluations)


@pytest.mark.parametrize("small", [False, True])
def test_stages_of_one_name_are_the_same(small):
    stages = {}
    for name in reproduction.names():
        figure = reproduction.get(name, small)
        for stage in (*figure.trainings, *figure.evaluations):
            assert stages.setdefault((type(stage), stage.name), stage) == stage
    assert all("/" not in name for _, name in stages)


def test_architectures_are_those_named():
    stages = {
        stage.name: parse(evaluate, stage.arguments)
        for name in ("mnist", "mnist_transfer", "mnist_sweep")
        for stage in reproduction.get(name).evaluations
    }
    options = {name: values["task_option"] for name, values in stages.items()}
    assert options["mnist-1x20-sigmoid-100"] == []
    assert options["mnist-1x40-sigmoid-100"] == ["layers=(40,)"]
    assert options["mnist-2x20-sigmoid-100"] == ["layers=(20, 20)"]
    assert options["mnist-3x100-sigmoid-100"] == ["layers=(100, 100, 100)"]
    assert options["mnist-1x20-relu-100"] == ["activation=relu"]
    assert stages["mnist-1x20-sigmoid-200"]["steps"] == 200
    assert stages["mnist-1x20-sigmoid-100"]["steps"] == 100


def test_techniques_are_tried_one_at_a_time():
    first, *others = reproduction.get("ablations").trainings
    usual = parse(meta_train, first.arguments)
    assert usual["second_derivatives"] and usual["staggered"] and usual["random_scale"] > 0.0
    changes = {}
    for training in others:
        values = parse(meta_train, training.arguments)
        changes[training.name] = {name for name in values if values[name] != usual[name]}
    assert changes["not_staggered"] == {"staggered"}
    assert changes["weight_decay"] == {"rule_option"}
    # Of back-propagation, which evolution strategies do without.
    of_gradients = {"second_derivatives", "clip_through_time", "window_clip"}
    assert changes["pes"] == {"pes_pairs", *of_gradients}
    assert all(changes.values())
    assert all(len(own - of_gradients) in (1, 2) or own < of_gradients for own in changes.values())
    assert len({training.arguments for training in others}) == len(others)


def test_an_unknown_figure_is_refused():
    with pytest.raises(ValueError, match="one of the figures quadratics, .* Received: 'nothing'"):
        reproduction.get("nothing")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
