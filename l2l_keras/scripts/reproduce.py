"""Reproduces the paper's figures: meta-trains, evaluates against tuned baselines, and draws.

A variant in seconds, which only shows that everything works, and the figure itself:

  l2l-reproduce --figure=quadratics --small
  l2l-reproduce --figure=quadratics

From the shipped presets, without meta-training; from a rule of your own:

  l2l-reproduce --figure=mnist_sweep --preset=shipped --data_dir=~/tensorflow_datasets
  l2l-reproduce --figure=mnist --preset=mnist_mlp=my_rule/preset

How much single techniques of meta-training and options of a general rule contribute:

  l2l-reproduce --figure=ablations --data_dir=~/tensorflow_datasets

A figure is a list of stages, each of them an l2l-meta-train or l2l-evaluate that is printed and
run, and a drawing of what they wrote. Stages whose output exists are not run again: after an
interruption, the same command continues. All figures share their stages in one folder.

The folder then holds FIGURE.png, FIGURE.csv (its numbers), FIGURE.json (settings, commands, final
losses, tuned learning rates, versions), trainings/ and evaluations/.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from absl import flags

from l2l_keras.scripts import _console

if TYPE_CHECKING:
    from l2l_keras import reproduction

_FIGURES = [
    "quadratics",
    "mnist",
    "mnist_transfer",
    "mnist_sweep",
    "cifar",
    "neural_art",
    "update_maps",
    "ablations",
]

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
define.enum("figure", None, [*_FIGURES, "all"], "The figure to reproduce.")
define.multi_string(
    "preset",
    [],
    "NAME=PRESET takes a preset, by name or folder, for the rule NAME of the figure instead of "
    "meta-training it. Repeatable. `shipped` does so for all rules that have a shipped preset.",
)
define.boolean("small", False, "Whether to make a small variant, in seconds.")
define.string("data_dir", None, "Folder of TensorFlow Datasets, for figures that read it.")
define.boolean("download", True, "Whether to download a data set that is missing.")
define.string("output_dir", None, "l2l_reproduce by default, l2l_reproduce_small with --small.")
define.count("jobs", 1, "Stages that run at a time, each a process of one to two gigabytes.")
define.integer("threads", 0, "Processor threads of meta-training; 0: all.", lower_bound=0)

define = _console.define_in(FLAGS, "Neural art")
define.string(
    "pictures_dir",
    "neural_art",
    "Folder of pictures for neural art: content/train, content/validation, content/test and style.",
)
define.string("style", "starry_night.jpg", "Picture in style/ to meta-train on.")
define.string("new_style", "wave.jpg", "Another picture in style/, to test on.")
define.string("vgg16_weights", "imagenet", "Weights of VGG16: `imagenet` (downloaded), or a file.")
define.enum(
    "preprocessing",
    "caffe",
    ["caffe", "torch"],
    "How these weights expect pictures: `caffe` for those that are downloaded.",
)


def main(argv: list[str]) -> None:
    """Reproduces the figures that the flags name."""
    del argv
    from l2l_keras import folder_lock, reproduction

    if FLAGS.figure is None:
        raise _console.UsageError(
            f"Expected --figure={'|'.join([*_FIGURES, 'all'])}. Received: none"
        )
    names = _FIGURES if FLAGS.figure == "all" else [FLAGS.figure]
    pictures = reproduction.Pictures(
        FLAGS.pictures_dir, FLAGS.style, FLAGS.new_style, FLAGS.vgg16_weights, FLAGS.preprocessing
    )
    figures = {name: reproduction.get(name, FLAGS.small, pictures) for name in names}
    given = _given_presets(figures)
    default = "l2l_reproduce_small" if FLAGS.small else "l2l_reproduce"
    folder = _console.writable_directory(FLAGS.output_dir or default)
    data_arguments = [f"--data_dir={FLAGS.data_dir}"] * bool(FLAGS.data_dir)
    data_arguments += ["--nodownload"] * (not FLAGS.download)
    training_arguments = [f"--threads={FLAGS.threads}"] * bool(FLAGS.threads)
    workspace = reproduction.Workspace(folder, given, data_arguments, training_arguments)
    runner = reproduction.CommandRunner(FLAGS.jobs, functools.partial(print, flush=True))
    own_command = _console.command_line("l2l-reproduce", FLAGS)
    settings = {"small": FLAGS.small, "made_by": own_command}
    try:
        with folder_lock.locked(folder):
            for name, figure in figures.items():
                paths = reproduction.reproduce(name, figure, workspace, runner, settings)
                print(f"{name}: wrote {', '.join(path.name for path in paths)} in {folder}")
    except (folder_lock.FolderInUseError, reproduction.StageError) as error:
        raise _console.UserError(f"{error}; then continue with: {own_command}") from error
    except (OSError, ValueError) as error:
        raise _console.UserError(f"The figure could not be made: {error}") from error
    except KeyboardInterrupt:
        raise _console.Interrupted(f"interrupted; continue with: {own_command}") from None


def _given_presets(figures: dict[str, reproduction.Figure]) -> dict[str, str]:
    """Returns the presets to take instead of meta-training, by name of the training."""
    trainings = {t.name: t for figure in figures.values() for t in figure.trainings}
    given: dict[str, str] = {}
    for value in FLAGS.preset:
        if value == "shipped":
            given = {name: t.preset for name, t in trainings.items() if t.preset} | given
            continue
        name, equals, preset = value.partition("=")
        if not equals or name not in trainings:
            raise _console.UsageError(
                "Expected --preset=shipped, or --preset=NAME=PRESET with one of "
                f"{', '.join(trainings)} as NAME. Received: --preset={value}"
            )
        _console.load_preset(preset)  # Before the long work.
        given[name] = preset
    return given


def console() -> None:
    """Entry point of `l2l-reproduce`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
