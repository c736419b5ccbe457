r"""Shows what a learned optimizer does with gradients.

  l2l-explain --preset=mnist_mlp
  l2l-explain --preset=my_run/preset --scale=0.001 --output_dir=explained

For elementwise rules: the update as a function of the gradient, after several histories, and for
how long a single gradient has an effect. For tensorwise rules: their step sizes and updates when
the gradients of a matrix agree with each other more or less. Adam's responses are shown beside.

The folder then holds update_maps.png or tensor_responses.png, and a .csv with the numbers.
"""

from __future__ import annotations

from absl import flags

from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
define.string("preset", None, "Name of a shipped preset, or folder of one.")
define.float("scale", 0.01, "A typical gradient, for elementwise rules.", lower_bound=1e-30)
define.integer("steps", 300, "Gradients that tensorwise rules are shown.", lower_bound=2)
define.string("output_dir", "l2l_explained", "Where everything is written.")


def main(argv: list[str]) -> None:
    """Draws the responses of a preset's rules to gradients."""
    del argv
    from l2l_keras.evaluation.files import write_files
    from l2l_keras.reproduction import outputs

    if FLAGS.preset is None:
        raise _console.UsageError("Expected --preset=NAME. Received: none")
    rule, card = _console.load_preset(FLAGS.preset)
    folder = _console.writable_directory(FLAGS.output_dir)
    preset = card.get("name", FLAGS.preset)
    explained = outputs.explain(rule, preset, FLAGS.scale, FLAGS.steps)
    for name, output in explained.items():
        paths = write_files(output.files(name), folder)
        print(f"Wrote {' and '.join(str(path) for path in paths)}")


def console() -> None:
    """Entry point of `l2l-explain`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
