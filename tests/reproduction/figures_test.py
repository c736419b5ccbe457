"""Tests of the figures as data: their commands can be typed, and their stages belong together."""

import shlex

import pytest

from l2l_keras import presets, reproduction, rules
from l2l_keras.scripts import evaluate, meta_train

SCRIPTS = {"l2l-meta-train": meta_train, "l2l-evaluate": evaluate}


def parse(script, arguments):
    """Parses flags as the script does, and returns their values by name."""
    for name in script.FLAGS:
        script.FLAGS[name].unparse()
    assert script.FLAGS(["l2l", *arguments]) == ["l2l"]
    return {name: script.FLAGS[name].value for name in script.FLAGS}


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("name", reproduction.names())
def test_commands_can_be_parsed(name, small, tmp_path):
    workspace = reproduction.Workspace(tmp_path, {}, ["--nodownload"], ["--threads=1"])
    figure = reproduction.get(name, small)
    for stage in (*figure.trainings, *figure.evaluations):
        command, *arguments = workspace.command(stage)
        values = parse(SCRIPTS[command], arguments)
        assert values["output_dir"] == str(workspace.path(stage))
        assert values["download"] is False
        # The small variant's part of the general mixture is generated.
        assert not (small and values["task"] in ("cifar_convnet", "mnist_mlp"))


@pytest.mark.parametrize("small", [False, True])
def test_stages_belong_together(small):
    stages = {}
    for name in reproduction.names():
        figure = reproduction.get(name, small)
        names = {training.name for training in figure.trainings}
        assert all(names.issuperset(evaluation.trainings) for evaluation in figure.evaluations)
        for stage in (*figure.trainings, *figure.evaluations):
            # Figures share stages of one name, and so of one folder.
            assert stages.setdefault((type(stage), stage.name), stage) == stage
    assert all("/" not in name for _, name in stages)


def test_rules_are_trained_by_the_commands_on_the_cards_of_their_presets():
    trainings = {
        t.name: t for name in reproduction.names() for t in reproduction.get(name).trainings
    }
    shipped = {training.preset: training for training in trainings.values() if training.preset}
    assert set(shipped) == set(presets.list_presets()) - {"general", "general-fast"}
    for preset, training in shipped.items():
        command, *arguments = shlex.split(presets.list_presets()[preset]["command"])
        assert command == "l2l-meta-train"
        if preset != "neural_art":  # Where pictures and weights are differs between machines.
            assert list(training.arguments) == arguments


def test_paintings_are_made_from_the_pictures_that_are_named():
    pictures = reproduction.Pictures("photographs", "a.jpg", "b.jpg", "vgg16.h5", "torch")
    figure = reproduction.get("neural_art", pictures=pictures)
    content, style = "content_dir=photographs/content", "style=photographs/style/{}.jpg"
    vgg16 = ["weights=vgg16.h5", "preprocessing=torch"]
    training = parse(meta_train, figure.trainings[0].arguments)
    assert training["task_option"] == [content, style.format("a"), *vgg16, "size=64"]
    options = [parse(evaluate, stage.arguments)["task_option"] for stage in figure.evaluations]
    assert options == [
        [content, style.format(name), *vgg16, f"size={size}"]
        for name, size in (("a", 64), ("a", 128), ("b", 64))
    ]


def test_lstm_sub_never_sees_the_labels_that_it_is_tested_on():
    figure = reproduction.get("cifar")
    assert "--task_option=labels=(5, 6, 7, 8, 9)" in figure.trainings[1].arguments
    tested = [flag for stage in figure.evaluations for flag in stage.arguments if "labels" in flag]
    assert len(tested) == 2 and not set("".join(tested)) & set("56789")


def test_architectures_are_those_named():
    names = ("mnist", "mnist_transfer", "mnist_sweep")
    stages = {stage.name: stage for name in names for stage in reproduction.get(name).evaluations}
    values = {name: parse(evaluate, stage.arguments) for name, stage in stages.items()}
    for name, options in {
        "mnist-1x20-sigmoid-100": [],
        "mnist-1x40-sigmoid-100": ["layers=(40,)"],
        "mnist-3x100-sigmoid-100": ["layers=(100, 100, 100)"],
        "mnist-1x20-relu-100": ["activation=relu"],
    }.items():
        assert values[name]["task_option"] == options
    assert all(own["steps"] == int(name.rpartition("-")[2]) for name, own in values.items())


def test_techniques_are_tried_one_at_a_time():
    first, *others = reproduction.get("ablations").trainings
    common = parse(meta_train, first.arguments)
    assert common["second_derivatives"] and common["staggered"] and common["random_scale"] > 0.0
    changes = {}
    for training in others:
        values = parse(meta_train, training.arguments)
        changes[training.name] = {name for name in values if values[name] != common[name]}
    assert changes["not_staggered"] == {"staggered"}
    assert changes["no_fan_in"] == {"rule_option"}
    # Of back-propagation, which evolution strategies do without.
    of_gradients = {"second_derivatives", "clip_through_time", "window_clip"}
    assert changes["pes"] == {"pes_pairs", *of_gradients}
    assert all(changes.values())
    assert all(len(own - of_gradients) in (1, 2) or own < of_gradients for own in changes.values())
    assert len({training.arguments for training in others}) == len(others)


def test_rule_options_of_ablations_exist():
    for training in reproduction.get("ablations").trainings:
        values = parse(meta_train, training.arguments)
        options = meta_train._console.parse_options("rule_option", values["rule_option"])
        getattr(rules, meta_train._console.RULES[values["rule"]])(seed=0, **options)


def test_an_unknown_figure_is_refused():
    with pytest.raises(ValueError, match="one of the figures quadratics, .* Received: 'nothing'"):
        reproduction.get("nothing")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
