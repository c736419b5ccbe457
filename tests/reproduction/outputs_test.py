"""Tests of what a figure consists of, from handmade files of its stages."""

import csv
import io
import json
import math

import numpy as np
import pytest

from l2l_keras import evaluation
from l2l_keras.reproduction import Evaluation, Workshop, outputs
from l2l_keras.reproduction.outputs import Cell


def write_stage(folder, adam):
    """Writes the report of an evaluation in which Adam ended at `adam`, and a rule at 1."""
    folder.mkdir(parents=True)
    lines = ["optimizer,step,mean,half_width", "lstm,0,4,0.5", "lstm,1,1,0.1"]
    lines += ["Adam,0,4,0.5", f"Adam,1,{adam},nan"]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    tuning = {"learning_rates": [0.1], "mean_final_losses": [2.0], "on_edge": True}
    shared = {"interval_half_width": 0.1, "area": 1.0, "runs": 3, "final_losses": [1.0] * 3}
    results = [
        {"name": "lstm", "learned": True, "learning_rate": 1.0, "mean_final_loss": 1.0}
        | {"ratio_to_best_baseline": 1 / adam, "tuning": None, **shared},
        {"name": "Adam", "learned": False, "learning_rate": 0.1, "mean_final_loss": adam}
        | {"ratio_to_best_baseline": 1.0, "tuning": tuning, **shared},
    ]
    settings = {"task": "t", "steps": 1, "seeds": [0], "tuning_seeds": [0], "window": 1}
    content = {"settings": settings, "best_baseline": "Adam", "results": results}
    (folder / "results.json").write_text(json.dumps(content))
    (folder / "stage.json").write_text(json.dumps({"seconds": 12.5}))


@pytest.fixture(name="workshop")
def workshop_fixture(tmp_path):
    return Workshop(tmp_path, {"lstm": "quadratic"})


@pytest.fixture(name="cells")
def cells_fixture(workshop):
    cells = []
    for units, adam in ((10, 2.0), (40, 4.0)):
        stage = Evaluation(f"u{units}", ("lstm",), (f"--task_option=layers=({units},)",))
        write_stage(workshop.place(stage), adam)
        cells.append(Cell(f"{units} units", stage, "1 layer", units))
    return cells


def test_curves(cells, workshop):
    output = outputs.curves(cells, workshop)
    assert output.picture().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in output.figure.axes] == ["10 units", "40 units"]
    legend = [text.get_text() for text in output.figure.legends[0].get_texts()]
    assert legend == ["lstm (CoordinatewiseLSTM)", "Adam (tuned)"]

    rows = list(csv.DictReader(io.StringIO(output.table().decode())))
    assert len(rows) == 2 * 2 * 2
    assert rows[-1] == {
        "panel": "40 units",
        "optimizer": "Adam",
        "step": "1",
        "mean": "4",
        "half_width": "nan",
    }

    first, second = output.summary["panels"]
    assert first["command"] == (
        "l2l-evaluate --preset=lstm=quadratic '--task_option=layers=(10,)' "
        f"--output_dir={workshop.folder}/evaluations/u10"
    )
    assert (first["task"], first["steps"], first["wall_seconds"]) == ("t", 1, 12.5)
    lstm, adam = second["results"]
    assert lstm["ratio_to_best_baseline"] == 0.25
    assert (lstm["tuned_on_edge"], adam["tuned_on_edge"]) == (False, True)
    assert adam["learning_rate"] == 0.1


def test_finals(cells, workshop):
    output = outputs.finals(cells, "units", workshop)
    assert output.picture().startswith(b"\x89PNG")
    (axes,) = output.figure.axes
    assert axes.get_title() == "1 layer"
    lines = [container.lines[0].get_ydata().astype(float) for container in axes.containers]
    np.testing.assert_array_equal(lines, [[1.0, 1.0], [2.0, 4.0]])
    assert output.table() == outputs.curves(cells, workshop).table()
    assert output.summary == outputs.curves(cells, workshop).summary


def test_ablations(workshop):
    workshop = Workshop(workshop.folder, {"all": "digits_mlp", "without": "digits_mlp"})
    stage = Evaluation("ablations", ("all", "without"), ("--task=general",))
    ratios = {"all": {"a": 0.5, "b": 0.8}, "without": {"a": 0.9, "b": math.inf}}
    ends = (math.nan, math.nan)
    scores = [
        evaluation.testbed.Score(
            *(task, name, 10, "NAG", 0.1, False, 2.0, ratio, 1.0),
            *(evaluation.testbed.Ratio(ratio, *ends), evaluation.testbed.Ratio(1.0, *ends)),
            *(0.7, None, None),
        )
        for name, own in ratios.items()
        for task, ratio in own.items()
    ]
    evaluation.testbed.write_report(scores, workshop.place(stage), {})
    output = outputs.ablations(stage, workshop)
    assert output.picture().startswith(b"\x89PNG")
    assert output.table().decode().splitlines()[:2] == [
        "rule,task,ratio,low,high,area_ratio",
        "all,a,0.5,nan,nan,0.7",
    ]
    (axes,) = output.figure.axes
    assert [text.get_text() for text in axes.texts] == ["0.632", "inf"]
    # What is beyond the axis is at its edge.
    assert axes.lines[1].get_xdata().tolist() == [0.9, 10.0]
    assert [result["worst_problem"] for result in output.summary["results"]] == ["b", "b"]
    assert output.summary["command"].startswith("l2l-evaluate --preset=all=digits_mlp")


def test_a_missing_report_is_said(cells, workshop):
    (workshop.place(cells[1].evaluation) / "curves.csv").unlink()
    with pytest.raises(ValueError, match="Expected the folder of a report.*u40"):
        outputs.curves(cells, workshop)


def test_update_maps(workshop):
    output = outputs.update_maps({"lstm": 2.0}, workshop)
    assert output.picture().startswith(b"\x89PNG")
    title = output.figure.subfigs[0].axes[0].get_title()
    assert title == "lstm (CoordinatewiseLSTM)\ns = 2"
    assert output.summary == {"s": {"lstm": 2.0}}
    rows = list(csv.DictReader(io.StringIO(output.table().decode())))
    assert {row["rule"] for row in rows} == {"lstm"}

    def values(kind, which):
        own = [row for row in rows if (row["kind"], row["which"]) == (kind, which)]
        return [(float(row["x"]), float(row["update"])) for row in own]

    first = values("map", "first step")
    assert (first[0][0], first[-1][0]) == (-6.0, 6.0)
    gradients = np.float32([x for x, _ in first])
    expected = evaluation.updates_after(workshop.rule("lstm"), [], gradients)
    np.testing.assert_allclose([y for _, y in first], expected, rtol=1e-4, atol=1e-6)
    after = values("map", "after 10 of s and -s in turn")
    expected = evaluation.updates_after(workshop.rule("lstm"), [2.0, -2.0] * 5, gradients)
    np.testing.assert_allclose([y for _, y in after], expected, rtol=1e-4, atol=1e-6)
    response = values("response", "gradient 3 s")
    assert [x for x, _ in response] == list(range(31))
    expected = evaluation.impulse_responses(workshop.rule("lstm"), [6.0], 30)[0]
    np.testing.assert_allclose([y for _, y in response], expected, rtol=1e-3, atol=1e-6)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
