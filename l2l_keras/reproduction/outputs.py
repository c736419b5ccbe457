"""What a figure shows, from the files of its stages: the drawing, its numbers, and a summary."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from l2l_keras import evaluation, tasks
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.reproduction import drawing
from l2l_keras.reproduction.stages import Evaluation, Workshop
from l2l_keras.rules import TensorwiseRule, UpdateRule

_OF_A_RESULT = {
    "name",
    "learned",
    "learning_rate",
    "mean_final_loss",
    "interval_half_width",
    "ratio_to_best_baseline",
    "runs",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One comparison in a figure.

    Attributes:
        title: What it is.
        evaluation: The stage that makes it.
        group: Title of its panel, where several comparisons share one.
        value: Its value of the variable of such a panel.

    Example:
        >>> stage = l2l_keras.reproduction.Evaluation("near_zero", ("lstm",), ())
        >>> Cell("near zero", stage).title
        'near zero'
    """

    title: str
    evaluation: Evaluation
    group: str = ""
    value: float = math.nan


@dataclasses.dataclass(frozen=True)
class Output:
    r"""What a figure consists of.

    Attributes:
        figure: A `matplotlib.figure.Figure`.
        rows: The numbers that it shows, a header first.
        summary: What there is to say about it in JSON.
        extras: Further files by the ending of their name, which follows the figure's, such as
            `"_pictures.png"`.

    Example:
        >>> Output(None, [("step", "mean")], {}).table()
        b'step,mean\n'
    """

    figure: Any
    rows: Sequence[Sequence[Any]]
    summary: Mapping[str, Any]
    extras: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def table(self) -> bytes:
        """Returns the rows as comma-separated values."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows)
        return text.getvalue().encode()

    def picture(self) -> bytes:
        """Returns the figure as PNG."""
        image = io.BytesIO()
        self.figure.savefig(image, format="png")
        return image.getvalue()


def curves(cells: Sequence[Cell], workshop: Workshop) -> Output:
    """Draws loss curves, a panel for each cell.

    Args:
        cells: What to draw; their stages are finished.
        workshop: Where the stages were run.

    Returns:
        The figure; rows of panel, optimizer, step, mean and half-width of its 95 % interval; and
        the final losses.

    Raises:
        ValueError: If the files of a stage cannot be read.

    Example:
        >>> output = curves(cells, workshop)  # doctest: +SKIP
    """
    panels = _read(cells, workshop)
    figure = drawing.draw_panels(panels, _labels(cells, workshop))
    return Output(figure, _rows(panels), _summary(cells, workshop))


def finals(cells: Sequence[Cell], variable: str, workshop: Workshop) -> Output:
    """Draws final losses against a variable, a panel for each group of cells.

    Args:
        cells: What to draw; their stages are finished.
        variable: What the values of the cells are.
        workshop: Where the stages were run.

    Returns:
        As `curves`; the rows hold the whole curves.

    Raises:
        ValueError: If the files of a stage cannot be read.

    Example:
        >>> output = finals(cells, "units", workshop)  # doctest: +SKIP
    """
    panels = _read(cells, workshop)
    groups: dict[str, dict[float, Sequence[evaluation.Curve]]] = {}
    for cell in cells:
        groups.setdefault(cell.group, {})[cell.value] = panels[cell.title]
    figure = drawing.draw_finals(groups, variable, _labels(cells, workshop))
    return Output(figure, _rows(panels), _summary(cells, workshop))


def update_maps(scales: Mapping[str, float], workshop: Workshop) -> Output:
    """Draws what rules propose for a gradient after several histories, and how they remember one.

    Args:
        scales: By the name of a training, the size s of a usual gradient.
        workshop: Where the rules are.

    Returns:
        The figure; rows of rule, kind ("map" or "response"), which history or impulse, x (a
        gradient, or steps since the impulse) and update; and the scales.

    Raises:
        ValueError: If a preset is missing.

    Example:
        >>> output = update_maps({"lstm": 1.0}, workshop)  # doctest: +SKIP
    """
    rules = {name: workshop.rule(name) for name in scales}
    titles = {name: f"{workshop.label(name)}\ns = {scale:g}" for name, scale in scales.items()}
    return coordinate_rules(rules, scales, titles)


def coordinate_rules(
    rules: Mapping[str, UpdateRule], scales: Mapping[str, float], titles: Mapping[str, str]
) -> Output:
    """Draws what rules do that see coordinates; see `update_maps`.

    Args:
        rules: The rules by name.
        scales: By the name of a rule, the size s of a usual gradient.
        titles: By the name of a rule, the title of its panels.

    Returns:
        As `update_maps` does.

    Example:
        >>> rules = {"untrained": l2l_keras.rules.RNNprop(seed=0)}
        >>> output = coordinate_rules(rules, {"untrained": 0.1}, {})
        >>> output.rows[0]
        ('rule', 'kind', 'which', 'x', 'update')
    """
    maps = {name: evaluation.update_map(rule, scales[name]) for name, rule in rules.items()}
    responses = {name: evaluation.impulse_map(rule, scales[name]) for name, rule in rules.items()}
    rows: list[Sequence[Any]] = [("rule", "kind", "which", "x", "update")]
    rows += [
        (rule, kind, which, f"{place:.6g}", f"{value:.6g}")
        for kind, panels in (("map", maps), ("response", responses))
        for rule, (places, lines) in panels.items()
        for which, line in lines.items()
        for place, value in zip(places, line, strict=True)
    ]
    figure = drawing.draw_update_maps(maps, responses, titles)
    return Output(figure, rows, {"s": dict(scales)})


def tensorwise_rules(rules: Mapping[str, TensorwiseRule], steps: int) -> Output:
    """Draws how far tensorwise rules go when gradients agree with each other more or less.

    Args:
        rules: The rules by name.
        steps: Steps that they are shown.

    Returns:
        The figure; rows of rule, kind of gradients, step, step size, size of the update and cosine
        of the angle between it and descent; and the steps.

    Example:
        >>> rules = {"untrained": l2l_keras.rules.TensorwiseLSTM(seed=0)}
        >>> len(tensorwise_rules(rules, steps=2).rows)
        11
    """
    responses = {name: evaluation.tensor_responses(rule, steps) for name, rule in rules.items()}
    rows: list[Sequence[Any]] = [("rule", "gradients", "step", *evaluation.TensorResponse._fields)]
    rows += [
        (name, which, step, *(f"{number:.6g}" for number in numbers))
        for name, own in responses.items()
        for which, response in own.items()
        for step, numbers in enumerate(zip(*response, strict=True), start=1)
    ]
    return Output(drawing.draw_tensor_responses(responses), rows, {"steps": steps})


def neural_art(
    cells: Sequence[Cell], paintings: Sequence[Mapping[str, Any]], workshop: Workshop
) -> Output:
    """Draws loss curves on neural art, and a sheet of the paintings of each optimizer.

    Args:
        cells: The comparisons; their stages are finished.
        paintings: Arguments of `l2l_keras.tasks.NeuralArt` for each of them.
        workshop: Where the stages were run.

    Returns:
        As `curves`, with the sheet among the extras: for each comparison the painting of the first
        test optimizee, by each optimizer at its tuned learning rate.

    Raises:
        ValueError: If the files of a stage cannot be read.

    Example:
        >>> output = neural_art(cells, paintings, workshop)  # doctest: +SKIP
    """
    labels = _labels(cells, workshop)
    rows = {}
    for cell, options in zip(cells, paintings, strict=True):
        task = tasks.NeuralArt(**options)
        report = json.loads((workshop.place(cell.evaluation) / "results.json").read_text())
        steps, seed = report["settings"]["steps"], report["settings"]["seeds"][0]
        images = {"content": task.content("test", seed), "style": task.style_image}
        for result in report["results"]:
            name = result["name"]
            if result["learned"]:
                optimizer = LearnedOptimizer(workshop.rule(name))
            else:
                optimizer = evaluation.BASELINES[name].make(result["learning_rate"])
            rollout = evaluation.Rollout(task, optimizer, steps)
            rollout(seed)
            images[labels[name]] = task.to_image(rollout.parameters)
        rows[cell.title] = images
    sheet = Output(drawing.draw_pictures(rows), (), {}).picture()
    return dataclasses.replace(curves(cells, workshop), extras={"_pictures.png": sheet})


def ablations(stage: Evaluation, workshop: Workshop) -> Output:
    """Draws how rules that differ in one thing each do on several tasks.

    Args:
        stage: The comparison, which is finished; the rule that has all comes first.
        workshop: Where it was run.

    Returns:
        The figure; rows of rule, task, final loss relative to the best tuned baseline's with the
        ends of its 95 % interval, and area under the loss curve relative to that one's; and the
        geometric means.

    Raises:
        ValueError: If the files of the stage cannot be read.

    Example:
        >>> output = ablations(evaluation, workshop)  # doctest: +SKIP
    """
    scores = evaluation.testbed.read_scores(workshop.place(stage))
    ratios: dict[str, dict[str, float]] = {name: {} for name in stage.trainings}
    rows: list[Sequence[Any]] = [("rule", "task", "ratio", "low", "high", "area_ratio")]
    for score in scores:
        ratios[score.optimizer][score.problem] = score.ratio.mean
        numbers = (f"{number:.6g}" for number in (*score.ratio, score.mean_loss_ratio))
        rows.append((score.optimizer, score.problem, *numbers))
    summary = {
        "command": shlex.join(workshop.command(stage)),
        "results": [dataclasses.asdict(s) for s in evaluation.testbed.summaries(scores)],
    }
    return Output(drawing.draw_ablations(ratios), rows, summary)


def _read(cells: Sequence[Cell], workshop: Workshop) -> dict[str, Sequence[evaluation.Curve]]:
    """Returns the curves of each cell by its title."""
    return {cell.title: evaluation.read_curves(workshop.place(cell.evaluation)) for cell in cells}


def _labels(cells: Sequence[Cell], workshop: Workshop) -> dict[str, str]:
    """Returns how to name each optimizer in a legend."""
    names = dict.fromkeys(name for cell in cells for name in cell.evaluation.trainings)
    tuned = {name: f"{name} (tuned)" for name in evaluation.BASELINES}
    return {**tuned, **{name: workshop.label(name) for name in names}}


def _rows(panels: drawing.Panels) -> list[Sequence[Any]]:
    """Returns all curves as rows."""
    rows: list[Sequence[Any]] = [("panel", "optimizer", "step", "mean", "half_width")]
    for title, panel in panels.items():
        for curve in panel:
            points = zip(curve.mean, curve.half_width, strict=True)
            rows += [
                (title, curve.name, step, f"{mean:.6g}", f"{half_width:.6g}")
                for step, (mean, half_width) in enumerate(points)
            ]
    return rows


def _summary(cells: Sequence[Cell], workshop: Workshop) -> dict[str, Any]:
    """Returns settings and final losses of all cells."""
    panels = []
    for cell in cells:
        report = json.loads((workshop.place(cell.evaluation) / "results.json").read_text())
        keys = ("task", "steps", "seeds", "tuning_seeds", "window")
        panels.append(
            {
                "panel": cell.title,
                "command": shlex.join(workshop.command(cell.evaluation)),
                **{key: report["settings"][key] for key in keys},
                "best_baseline": report["best_baseline"],
                "results": [
                    {
                        **{key: value for key, value in result.items() if key in _OF_A_RESULT},
                        "tuned_on_edge": bool(result["tuning"] and result["tuning"]["on_edge"]),
                    }
                    for result in report["results"]
                ],
                "wall_seconds": workshop.seconds(cell.evaluation),
            }
        )
    return {"panels": panels}
