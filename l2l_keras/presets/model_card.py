"""README.md of a preset, which the Hugging Face Hub shows as its model card.

Source: Mitchell et al., "Model cards for model reporting" (2019).
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from l2l_keras import parameter_groups, schedules

FILE = "README.md"
_MARK = (
    "<!-- Generated from card.json. Without this line, l2l_keras keeps what you have written. -->"
)
# Some of the licences that the hub knows by name; any other one is "other" with a name.
_LICENCES = ("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "gpl-3.0", "mit")
_PURPOSE = {"use_for": "Use it for", "cost": "Time of a step (Adam: 1)"}
_TRAINING = {
    "task": "Task",
    "horizon": "Longest episode, steps",
    "schedule": "Learning rate in an episode",
    "command": "Command",
    "seed": "Seed",
    "validation_final_loss": "Final loss on validation optimizees",
    "wall_seconds": "Seconds",
    "peak_memory_mb": "Memory, MB",
    "date": "Date",
}
_TESTBED = (
    "Final losses divided by the best tuned baseline's (`final loss`: geometric mean over the "
    "problems of the testbed), after these numbers of steps:"
)


def own(folder: pathlib.Path) -> str | None:
    """Returns the README.md that someone has written; None if there is none, or a generated one."""
    path = folder / FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else _MARK
    return None if _MARK in text else text


def render(card: Mapping[str, Any], rule: Any, handle: str) -> str:
    """Returns the README.md of a preset.

    Args:
        card: The preset's card (see `l2l_keras.presets.save_preset`). What it lacks is left out.
        rule: The preset's rule, or rules by group.
        handle: What to pass to `LearnedOptimizer.from_preset`.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> text = render({"name": "mine", "horizon": 100}, rule, "hf://user/mine")
        >>> "| Longest episode, steps | 100 |" in text
        True
    """
    weights = sum(r.count_params() for r in parameter_groups.rules(rule).values())
    about = (
        f"A learned optimizer for Keras: {parameter_groups.summary(rule)}, a rule of {weights:,} "
        "meta-trained weights, computes the updates of a model's weights."
    )
    use = _use(json.dumps(handle), card.get("schedule") == "cosine")
    sections = {
        f"# {_line(card.get('name', handle))}": [_line(card.get("description", "")), about],
        "## Use": [f"```python\n{use}\n```", _named(card, _PURPOSE)],
        "## Meta-training": [_named(card, _TRAINING), _line(card.get("note", ""))],
        "## Results": [_results(card.get("results", {}))],
        "## Testbed": [_testbed(card.get("testbed", {}))],
        "## Where it fails": [_pairs(card.get("fails_on", {}))],
        "## Versions": [_pairs(card.get("versions", {}))],
    }
    told = {heading: [text for text in texts if text] for heading, texts in sections.items()}
    blocks = [block for heading, texts in told.items() if texts for block in (heading, *texts)]
    return "\n\n".join([_header(card.get("licence")), *blocks, _MARK]) + "\n"


def _use(handle: str, falling: bool) -> str:
    """Returns a program that uses a preset, with a learning rate that falls or the default."""
    begin = "import l2l_keras\n\n"
    load, end = "l2l_keras.LearnedOptimizer.from_preset", 'model.compile(optimizer, loss="mse")'
    if not falling:
        return f"{begin}optimizer = {load}({handle})\n{end}"
    rate = f"rate = {schedules.as_keras('steps')}  # Of your training run."
    return f"import keras\n{begin}{rate}\noptimizer = {load}({handle}, learning_rate=rate)\n{end}"


def _header(licence: Any) -> str:
    """Returns the YAML by which the hub files the preset; a string of JSON is one of YAML."""
    lines = ["library_name: l2l-keras", "tags: [keras, learned-optimizer, meta-learning]"]
    if licence and str(licence).lower() in _LICENCES:
        lines.append(f"license: {str(licence).lower()}")
    elif licence:
        lines += ["license: other", f"license_name: {json.dumps(str(licence))}"]
    return "\n".join(["---", *lines, "---"])


def _named(card: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Returns a table of some entries of a card under their names."""
    return _pairs({name: card[key] for key, name in names.items() if key in card})


def _results(results: Any) -> str:
    """Returns a table for each comparison of final losses, or of numbers alone."""
    if not isinstance(results, Mapping) or not all(
        isinstance(row, Mapping) for row in results.values()
    ):
        return _pairs(results)
    return "\n\n".join(f"{_line(title)}:\n\n{_pairs(row)}" for title, row in results.items())


def _testbed(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a table with a row for each number of steps."""
    if not summaries:
        return ""
    columns = [*next(iter(summaries.values()))]
    rows = [[steps, *map(row.get, columns)] for steps, row in summaries.items()]
    return f"{_TESTBED}\n\n{_table(['Steps', *(c.replace('_', ' ') for c in columns)], rows)}"


def _pairs(value: Any) -> str:
    """Returns a dictionary as a table of two columns, and anything else as a line."""
    if not isinstance(value, Mapping):
        return _line(value)
    return _table(["", ""], [[key, entry] for key, entry in value.items()]) if value else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a table of Markdown."""
    lines = [head, ["---"] * len(head), *([_line(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(value: Any) -> str:
    """Returns a value as text of one line that does not end a cell or begin a tag of HTML."""
    number = isinstance(value, float)
    text = f"{value:.4g}" if number else " ".join(str(value).split())
    return text.replace("|", "\\|").replace("<", "&lt;")
