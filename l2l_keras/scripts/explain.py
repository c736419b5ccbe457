r"""Shows what a learned optimizer does with gradients.

  l2l-explain --preset=mnist_mlp
  l2l-explain --preset=my_run/preset --scale=0.001 --output_dir=explained

For elementwise rules: the update as a function of the gradient, after several histories, and for
how long a single gradient has an effect. For tensorwise rules: their step sizes and updates when
the gradients of a matrix agree with each other more or less.

The folder then holds update_maps.png or tensor_responses.png, and a .csv with the numbers.
"""

from __future__ import annotations

from absl import flags

from l2l_keras import evaluation, parameter_groups
from l2l_keras.reproduction import outputs
from l2l_keras.rules import UpdateRule
from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()
_PRESET = flags.DEFINE_string(
    "preset", None, "Name of a shipped preset, or folder of one.", flag_values=FLAGS
)
_SCALE = flags.DEFINE_float(
    "scale", 0.01, "A typical gradient, for elementwise rules.", 1e-30, flag_values=FLAGS
)
_STEPS = flags.DEFINE_integer(
    "steps", 300, "Gradients that tensorwise rules are shown.", 2, flag_values=FLAGS
)
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "l2l_explained", "Where everything is written.", flag_values=FLAGS
)


def main(argv: list[str]) -> None:
    """Draws the responses of a preset's rules to gradients."""
    del argv
    if _PRESET.value is None:
        raise _console.UserError("Expected --preset=NAME. Received: none", _console.USAGE)
    rule, _ = _console.load_preset(_PRESET.value)
    folder = _console.writable_directory(_OUTPUT_DIR.value)
    rules = {
        _PRESET.value if isinstance(rule, UpdateRule) else f"{_PRESET.value}, {group!r}": own
        for group, own in parameter_groups.rules(rule).items()
    }
    tensorwise = {name: own for name, own in rules.items() if own.scope == "tensor"}
    others = {name: own for name, own in rules.items() if own.scope != "tensor"}
    explained = {}
    if others:
        scales = dict.fromkeys(others, _SCALE.value)
        titles = {name: f"{name}\ns = {_SCALE.value:g}" for name in others}
        explained["update_maps"] = outputs.elementwise_rules(others, scales, titles)
    if tensorwise:
        explained["tensor_responses"] = outputs.tensorwise_rules(tensorwise, _STEPS.value)
    for name, output in explained.items():
        files = {f"{name}.png": output.picture(), f"{name}.csv": output.table()}
        paths = evaluation.write_files(files, folder)
        print(f"Wrote {' and '.join(str(path) for path in paths)}")


def console() -> None:
    """Entry point of `l2l-explain`."""
    _console.run(main, FLAGS)


if __name__ == "__main__":
    console()
