"""The drawing, the numbers and the summary of a figure, from the files of its stages."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from l2l_keras import evaluation, parameter_groups, presets, tasks
from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.report import CURVE_HEADER, curve_rows
from l2l_keras.evaluation.rule_response import Adam, impulse_map, tensor_responses, update_map
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.reproduction import drawing
from l2l_keras.reproduction.stages import Evaluation
from l2l_keras.reproduction.workspace import Workspace
from l2l_keras.rules import TensorwiseRule, UpdateRule

_SETTINGS = ("task", "steps", "seeds", "tuning_seeds", "window")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One comparison in a figure, and the stage that makes it."""

    title: str
    evaluation: Evaluation
    group: str = ""  # Title of its panel, where several comparisons share one,
    value: float = math.nan  # and its value on the horizontal axis there.


@dataclasses.dataclass(frozen=True)
class Output:
    """The content of a figure's files."""

    figure: Any  # A `matplotlib.figure.Figure`.
    rows: Sequence[Sequence[Any]]  # The numbers that it shows, a header first.
    summary: Mapping[str, Any]  # Further content of its JSON file.
    sheets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further figures by what follows the figure's name in theirs, such as `"_pictures"`."""

    def files(self, name: str) -> dict[str, Any]:
        """Returns the content of the files of a figure by this name; see `write_files`."""
        sheets = {f"{name}{ending}.png": sheet for ending, sheet in self.sheets.items()}
        return {f"{name}.png": self.figure, f"{name}.csv": self.rows, **sheets}


def curves(cells: Sequence[Cell], workspace: Workspace) -> Output:
    """Draws loss curves, a panel for each cell, from the files of finished stages.

    The rows are panel, optimizer, step, mean and half-width of its 95 % interval.
    """
    panels = _panels(cells, workspace)
    figure = drawing.draw_panels(panels, _labels(cells, workspace))
    return Output(figure, _rows(panels), _summary(cells, workspace))


def finals(cells: Sequence[Cell], variable: str, workspace: Workspace) -> Output:
    """Draws final losses against a variable, a panel for each group; the rows of `curves`."""
    panels = _panels(cells, workspace)
    groups: dict[str, dict[float, Sequence[evaluation.Curve]]] = {}
    for cell in cells:
        groups.setdefault(cell.group, {})[cell.value] = panels[cell.title]
    figure = drawing.draw_finals(groups, variable, _labels(cells, workspace))
    return Output(figure, _rows(panels), _summary(cells, workspace))


def update_maps(scales: Mapping[str, float], workspace: Workspace) -> Output:
    """Draws the responses of rules to gradients, given the RMS of gradients by training name."""
    rules = {name: workspace.load(name)[0] for name in scales}
    return elementwise_rules(rules, scales, {name: workspace.label(name) for name in scales})


def elementwise_rules(
    rules: Mapping[str, UpdateRule], scales: Mapping[str, float], titles: Mapping[str, str]
) -> Output:
    """Draws updates against gradients after several histories, and responses to one gradient.

    `scales` and `titles` hold, by the name of a rule, the RMS of its gradients and the title of its
    panels. In the rows, x is a gradient in units of that RMS, or steps since the impulse.
    """
    maps = {name: update_map(rule, scales[name]) for name, rule in rules.items()}
    responses = {name: impulse_map(rule, scales[name]) for name, rule in rules.items()}
    rows: list[Sequence[Any]] = [("rule", "kind", "which", "x", "update")]
    rows += [
        (rule, panel, which, f"{x:.6g}", f"{value:.6g}")
        for panel, of_rules in (("map", maps), ("response", responses))
        for rule, (points, lines) in of_rules.items()
        for which, line in lines.items()
        for x, value in zip(points, line, strict=True)
    ]
    figure = drawing.draw_update_maps(maps, responses, scales, titles)
    return Output(figure, rows, {"scales": dict(scales)})


def tensorwise_rules(rules: Mapping[str, TensorwiseRule | Adam], steps: int) -> Output:
    """Draws the steps of tensorwise rules, or Adam, when successive gradients agree more or less.

    The rows hold step sizes, RMS of updates, and cosines of their angles with descent.
    """
    responses = {name: tensor_responses(rule, steps) for name, rule in rules.items()}
    rows: list[Sequence[Any]] = [
        ("rule", "gradients", "step", *(field for field, _ in drawing.RESPONSE_PANELS))
    ]
    rows += [
        (name, which, step, *(f"{number:.6g}" for number in numbers))
        for name, own in responses.items()
        for which, response in own.items()
        for step, numbers in enumerate(zip(*response, strict=True), start=1)
    ]
    return Output(drawing.draw_tensor_responses(responses), rows, {"steps": steps})


def explain(rule: presets.Rules, name: str, scale: float, steps: int) -> dict[str, Output]:
    """Draws what the rules of a preset do with gradients, and Adam beside them.

    Elementwise rules, `"update_maps"`, are shown gradients of this scale; tensorwise rules,
    `"tensor_responses"`, so many gradients.
    """
    rules = {
        name if isinstance(rule, UpdateRule) else f"{name}, group {group!r}": own
        for group, own in parameter_groups.rules(rule).items()
    }
    adam = {"Adam, learning rate 0.001": Adam()}
    tensorwise = {title: own for title, own in rules.items() if own.scope == "tensor"}
    others = {title: own for title, own in rules.items() if own.scope != "tensor"}
    explained = {}
    if others:
        scales = dict.fromkeys(others | adam, scale)
        explained["update_maps"] = elementwise_rules(others | adam, scales, {})
    if tensorwise:
        explained["tensor_responses"] = tensorwise_rules(tensorwise | adam, steps)
    return explained


def neural_art(
    cells: Sequence[Cell], paintings: Sequence[Mapping[str, Any]], workspace: Workspace
) -> Output:
    """Draws loss curves on neural art, and a sheet of each optimizer's first painting of each cell.

    `paintings` holds the arguments of `l2l_keras.tasks.NeuralArt` for each cell.
    """
    labels = _labels(cells, workspace)
    rows = {}
    for cell, options in zip(cells, paintings, strict=True):
        task = tasks.NeuralArt(**options)
        report = _report(cell, workspace)
        seed = report["settings"]["seeds"][0]
        images = {"content": task.content("test", seed), "style": task.style_image}
        for result in report["results"]:
            name = result["name"]
            if result["learned"]:
                optimizer = LearnedOptimizer(workspace.load(name)[0])
            else:
                optimizer = evaluation.BASELINES[name].make(result["learning_rate"])
            rollout = evaluation.Rollout(task, optimizer, report["settings"]["steps"])
            rollout(seed)
            images[labels[name]] = task.to_image(rollout.parameters)
        rows[cell.title] = images
    sheet = drawing.draw_pictures(rows)
    return dataclasses.replace(curves(cells, workspace), sheets={"_pictures": sheet})


def ablations(stage: Evaluation, workspace: Workspace) -> Output:
    """Draws the ratios of rules that each differ from the first one in one thing, on several tasks.

    The rows hold final losses relative to the best tuned baseline's, the ends of their 95 %
    intervals, and mean losses over the run relative to that baseline's.
    """
    scores = testbed.read_scores(workspace.path(stage))
    ratios: dict[str, dict[str, float]] = {name: {} for name in stage.trainings}
    rows: list[Sequence[Any]] = [("rule", "task", "ratio", "low", "high", "mean_loss_ratio")]
    for score in scores:
        ratios[score.optimizer][score.problem] = score.ratio.mean
        texts = (f"{number:.6g}" for number in (*score.ratio, score.mean_loss_ratio))
        rows.append((score.optimizer, score.problem, *texts))
    results = [dataclasses.asdict(summary) for summary in testbed.summaries(scores)]
    summary = {"command": shlex.join(workspace.command(stage)), "results": results}
    return Output(drawing.draw_ablations(ratios), rows, summary)


def _panels(cells: Sequence[Cell], workspace: Workspace) -> dict[str, Sequence[evaluation.Curve]]:
    """Returns the curves of each cell by its title."""
    return {cell.title: evaluation.read_curves(workspace.path(cell.evaluation)) for cell in cells}


def _report(cell: Cell, workspace: Workspace) -> dict[str, Any]:
    """Returns the report of a cell's comparison."""
    return json.loads((workspace.path(cell.evaluation) / "results.json").read_bytes())


def _labels(cells: Sequence[Cell], workspace: Workspace) -> dict[str, str]:
    """Returns how legends name each optimizer."""
    names = dict.fromkeys(name for cell in cells for name in cell.evaluation.trainings)
    tuned = {name: f"{name} (tuned)" for name in evaluation.BASELINES}
    return {**tuned, **{name: workspace.label(name) for name in names}}


def _rows(panels: drawing.Panels) -> list[Sequence[Any]]:
    """Returns all curves as rows."""
    rows: list[Sequence[Any]] = [("panel", *CURVE_HEADER)]
    return rows + [(title, *row) for title, panel in panels.items() for row in curve_rows(panel)]


def _summary(cells: Sequence[Cell], workspace: Workspace) -> dict[str, Any]:
    """Returns settings and final losses of all cells."""
    panels = []
    for cell in cells:
        report = _report(cell, workspace)
        for result in report["results"]:
            del result["final_losses"]
            tuning = result.pop("tuning")
            result["tuned_on_edge"] = bool(tuning and tuning["on_edge"])
        panels.append(
            {
                "panel": cell.title,
                "command": shlex.join(workspace.command(cell.evaluation)),
                **{key: report["settings"][key] for key in _SETTINGS},
                "best_baseline": report["best_baseline"],
                "results": report["results"],
                "wall_seconds": workspace.seconds(cell.evaluation),
            }
        )
    return {"panels": panels}
