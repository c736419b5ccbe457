"""Writes the pages of the presets and draws their pictures: `python docs/gallery.py`.

Texts come from the presets' cards. A picture holds the digest of the rule that it shows, and is
drawn if it is missing or shows another rule: to draw it again, remove it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FOLDER = Path(__file__).resolve().parent
PICTURES = ("paths", "responses")
DIGEST = "Rule"
"""Key of the digest in a picture's metadata."""
STEPS = 100
_SCALES = {"quadratic": 1.0, "mnist_mlp": 0.002, "digits_mlp": 0.004}
"""RMS of gradients by the task of elementwise rules, as in the figure `update_maps`."""
_DEFAULT_SCALE = 0.01
_COLOURS = 48
_DPI = 85
_ADAM, _SHADE = "#0072b2", "#d9d9d9"

Point = tuple[float, float]


class Valley(NamedTuple):
    """A function of two weights."""

    title: str
    loss: Callable[[Any, Any], Any]
    start: Point
    minimum: Point
    limits: tuple[Point, Point]


VALLEYS = (
    Valley(
        "a ravine: (x² + 25 y²) / 2",
        lambda x, y: (x**2 + 25.0 * y**2) / 2.0,
        (-2.0, 0.7),
        (0.0, 0.0),
        ((-2.4, 0.8), (-1.0, 1.0)),
    ),
    Valley(
        "a bend: ((1 - x)² + 10 (y - x²)²) / 10",
        lambda x, y: ((1.0 - x) ** 2 + 10.0 * (y - x**2) ** 2) / 10.0,
        (-1.2, 1.2),
        (1.0, 1.0),
        ((-1.7, 1.7), (-0.7, 2.2)),
    ),
)


def pages(cards: Mapping[str, Mapping[str, Any]]) -> dict[Path, str]:
    """Returns the Markdown of the gallery and of each preset's page by its path.

    Args:
        cards: Cards of the presets by name.
    """
    folder = FOLDER / "presets"
    own = {folder / f"{name}.md": "\n\n".join(_page(name, card)) for name, card in cards.items()}
    return {folder / "gallery.md": "\n\n".join(_gallery(cards)) + "\n"} | {
        path: f"{text}\n" for path, text in own.items()
    }


def _gallery(cards: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields the paragraphs of the page that shows all presets."""
    yield "# Gallery"
    yield (
        f"What {STEPS} steps of each preset do in two valleys of two weights, and Adam with the "
        "best of nine learning rates for each valley. The valleys have no noise and two weights, "
        "and no preset was trained on them: the pictures show character, not quality. A path that "
        "leaves the picture is a rule that fails on this function. How good the presets are "
        "where they belong is in [results](../results.md)."
    )
    rows = [
        (f"[`{name}`]({name}.md)", card["use_for"], card["cost"]) for name, card in cards.items()
    ]
    yield _table(("preset", "use it for", "cost of a step (Adam: 1)"), rows)
    for name in cards:
        yield f"## {name}"
        yield f"[![Paths of {name} and Adam]({_picture(name, 'paths')})]({name}.md)"


def _page(name: str, card: Mapping[str, Any]) -> Iterator[str]:
    """Yields the paragraphs of a preset's page."""
    yield f"# {name}"
    yield card["description"]
    earlier = list(_earlier(card))
    facts = [
        ("use it for", card["use_for"]),
        ("cost of a step, in steps of Adam", card["cost"]),
        ("longest horizon in meta-training", f"{card['horizon']:,} steps"),
        ("meta-training", _training(card, len(earlier))),
        ("licence", card["licence"]),
    ]
    yield _table(facts[0], facts[1:])
    use = f'optimizer = l2l_keras.LearnedOptimizer.from_preset("{name}")'
    yield f"```python\nimport l2l_keras\n\n{use}\n```"
    yield "## Where it fails"
    yield "\n".join(f"- {where}: {what}" for where, what in card["fails_on"].items())
    yield (
        "With [a guard](../how_to/safeguards.md#the-guard-a-fallback-to-adam), Adam takes over "
        "from a rule that fails."
    )
    yield "## What was measured"
    yield from _measured(name, card)
    yield "## Its paths in two valleys"
    yield _linked(f"Paths of {name} and Adam", _picture(name, "paths"))
    yield f"{STEPS} steps; [how to read this](gallery.md)."
    yield "## What it does with gradients"
    yield _linked(f"Responses of {name} to gradients", _picture(name, "responses"))
    scale = scale_of(card)
    option = "" if scale == _DEFAULT_SCALE else f" --scale={scale:g}"
    yield (
        f"`l2l-explain --preset={name}{option}` draws this, and writes the numbers; "
        "[how to read it](../how_to/diagnostics.md#what-a-rule-does)."
    )
    yield "## How it was trained"
    if earlier:
        yield (
            f"In {len(earlier) + 1} stages, each from the rule of the one before. Their commands "
            f'are in the card: `l2l_keras.list_presets()["{name}"]`. '
            "[Research notes](../research/README.md) say what was tried."
        )
    else:
        lines = card["command"].replace(" --", " \\\n  --").replace(" '--", " \\\n  '--")
        yield f"```sh\n{lines}\n```"


def _earlier(card: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the cards of the rules that a preset was trained from."""
    while "trained_from" in card:
        card = card["trained_from"]
        yield card


def _training(card: Mapping[str, Any], earlier: int) -> str:
    """Says how long the (last) meta-training took, and when it was."""
    stage = "the last stage " if earlier else ""
    return (
        f"{stage}{card['wall_seconds'] / 60:.0f} minutes, {card['peak_memory_mb']:,} MB, "
        f"{card['processors']} processor cores, {card['date']}"
    )


def _measured(name: str, card: Mapping[str, Any]) -> Iterator[str]:
    """Yields tables of what a preset has achieved."""
    if "testbed" in card:
        header = ("steps", "final loss / best tuned baseline's", "worst problem", "Adam (0.001)")
        keys = ("final_loss", "worst", "to_adams_default")
        rows = [
            (f"{int(steps):,}", *(str(own[key]) for key in keys))
            for steps, own in card["testbed"].items()
        ]
        yield _table(header, rows)
        yield (
            "Geometric means over the 17 problems of the "
            "[testbed](../results.md#how-good-are-the-general-presets-on-unseen-models), on none "
            "of which it was trained."
        )
        return
    results = {
        what: {name if who == "learned" else who: loss for who, loss in losses.items()}
        for what, losses in card["results"].items()
    }
    optimizers = [name, *sorted({who for losses in results.values() for who in losses} - {name})]
    yield _table(
        ("", *(f"`{name}`" if who == name else who for who in optimizers)),
        [(what, *(f"{losses[who]:.3g}" for who in optimizers)) for what, losses in results.items()],
    )
    yield "The baselines' learning rates were tuned for the problem, the preset was used as it is."


def _linked(alternative: str, picture: str) -> str:
    """Returns a picture that leads to itself in full size."""
    return f"[![{alternative}]({picture})]({picture})"


def _picture(name: str, kind: str) -> str:
    """Returns the path of a picture, relative to the pages of presets."""
    return f"../images/presets/{name}_{kind}.png"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def picture_path(name: str, kind: str) -> Path:
    """Returns the file of a picture of a preset, `"paths"` or `"responses"`."""
    return (FOLDER / "presets" / _picture(name, kind)).resolve()


def scale_of(card: Mapping[str, Any]) -> float:
    """Returns the gradients that a preset's elementwise rules are shown, as an RMS."""
    return _SCALES.get(card["task"], _DEFAULT_SCALE)


def digest(name: str) -> str:
    """Returns the digest of a shipped preset's rule: its configuration and its weights."""
    import l2l_keras

    folder = Path(l2l_keras.presets.__file__).parent / name
    content = b"".join((folder / file).read_bytes() for file in ("config.json", "weights.npz"))
    return hashlib.sha256(content).hexdigest()[:16]


def is_current(name: str, kind: str) -> bool:
    """Returns whether a picture is there and shows the preset's rule."""
    from PIL import Image

    path = picture_path(name, kind)
    if not path.exists():
        return False
    with Image.open(path) as picture:
        return picture.info.get(DIGEST) == digest(name)


def draw(name: str, kind: str) -> None:
    """Draws a picture of a preset."""
    import l2l_keras
    from l2l_keras import parameter_groups
    from l2l_keras.reproduction import outputs

    rule, card = l2l_keras.presets.load_preset(name)
    if kind == "paths":
        rules = parameter_groups.rules(rule)
        titles = {group: name if len(rules) == 1 else f"{name}, {group}" for group in rules}
        figure = _draw_paths({titles[group]: own for group, own in rules.items()})
    else:
        (output,) = outputs.explain(rule, name, scale_of(card), steps=300).values()
        figure = output.figure
    _save(figure, picture_path(name, kind), digest(name))


def _draw_paths(rules: Mapping[str, Any]) -> Any:
    """Draws the paths of rules and of Adam in the valleys."""
    from matplotlib.figure import Figure

    from l2l_keras import LearnedOptimizer
    from l2l_keras.evaluation.plots import LEARNED_COLOURS, tidy

    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    for axes, valley in zip(figure.subplots(1, len(VALLEYS)), VALLEYS, strict=True):
        rate, path = _best_adam(valley)
        lines = {f"Adam at {rate:.2g}": (path, {"color": _ADAM, "linestyle": "--"})}
        for (label, rule), colour in zip(rules.items(), LEARNED_COLOURS, strict=False):
            path = _path(LearnedOptimizer(rule), valley)
            lines[label] = (path, {"color": colour, "linewidth": 2.0})
        (left, right), (bottom, top) = valley.limits
        x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
        losses = valley.loss(x, y)
        levels = np.geomspace(1e-3 * losses.max(), losses.max(), 9)
        axes.contour(x, y, losses, levels, colors=_SHADE, linewidths=0.8)
        for label, (path, style) in lines.items():
            shown = f"{label}: {_outcome(path, valley)}"
            outside = [n for n, point in enumerate(path) if not _is_shown(point, valley)]
            path = path[: outside[0] + 1] if outside else path
            axes.plot(*path.T, marker=".", markersize=4, label=shown, zorder=3, **style)
        axes.plot(*valley.start, "o", color="black", markersize=6, zorder=4)
        axes.plot(*valley.minimum, "*", color="black", markersize=10, zorder=4)
        axes.set(xlim=(left, right), ylim=(bottom, top), title=valley.title)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), frameon=False)
        tidy(axes)
        axes.grid(False)
    return figure


@functools.cache
def _best_adam(valley: Valley) -> tuple[float, np.ndarray]:
    """Returns the learning rate with which Adam ends lowest, and its path."""
    import keras

    from l2l_keras.evaluation import half_decades

    paths = {rate: _path(keras.optimizers.Adam(rate), valley) for rate in half_decades(-4, 0)}
    return min(paths.items(), key=lambda item: _final(item[1], valley))


def _path(optimizer: Any, valley: Valley) -> np.ndarray:
    """Returns the points `[steps + 1, 2]` that an optimizer visits from a valley's start."""
    import keras
    import tensorflow as tf

    variable = keras.Variable(valley.start, name="weights")
    points = [valley.start]
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = valley.loss(*tf.unstack(variable.value))
        optimizer.apply([tape.gradient(loss, variable.value)], [variable])
        points.append(tuple(variable.numpy()))
    return np.array(points, np.float64)


def _final(path: np.ndarray, valley: Valley) -> float:
    """Returns the loss at the end of a path; infinite if it is not a number."""
    loss = float(valley.loss(*path[-1]))
    return loss if math.isfinite(loss) else math.inf


def _is_shown(point: np.ndarray, valley: Valley) -> bool:
    """Returns whether a point is within a valley's limits."""
    lows, highs = zip(*valley.limits, strict=True)
    return bool(np.all((point >= lows) & (point <= highs)))


def _outcome(path: np.ndarray, valley: Valley) -> str:
    """Says what a path has led to."""
    loss = _final(path, valley)
    if loss > valley.loss(*path[0]):
        return "diverges"
    return f"loss {loss:.1g} after {len(path) - 1} steps"


def _save(figure: Any, path: Path, rule: str) -> None:
    """Saves a figure as a small PNG, with the digest of the rule that it shows."""
    from PIL import Image, PngImagePlugin

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    information = PngImagePlugin.PngInfo()
    information.add_text(DIGEST, rule)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(buffer).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True, pnginfo=information)


def main() -> None:
    """Writes all pages, and draws the pictures that are not current."""
    import l2l_keras

    cards = l2l_keras.list_presets()
    for path, text in pages(cards).items():
        path.write_text(text, encoding="utf-8")
    for name in cards:
        for kind in PICTURES:
            if not is_current(name, kind):
                print(f"Drawing {kind} of {name}")
                draw(name, kind)


if __name__ == "__main__":
    main()
