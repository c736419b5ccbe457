"""Tests of the content of figures, from handmade files of their stages."""

import json
import math

import numpy as np
import pytest

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.rule_response import impulse_responses, updates_after
from l2l_keras.reproduction import Workspace, outputs
from l2l_keras.reproduction.outputs import Cell
from l2l_keras.reproduction.stages import Evaluation
from l2l_keras.rules import TensorwiseLSTM


def write_stage(folder, adam):
    """Writes the report of an evaluation in which Adam ended at `adam`, and a rule at 1."""
    folder.mkdir(parents=True)
    lines = ["optimizer,step,mean,half_width", "lstm,0,4,0.5", "lstm,1,1,0.1"]
    lines += ["Adam,0,4,0.5", f"Adam,1,{adam},nan"]
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")
    tuning = {"learning_rates": [0.1], "mean_final_losses": [2.0], "on_edge": True}
    shared = {"interval_half_width": 0.1, "runs": 3, "final_losses": [1.0] * 3}
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


@pytest.fixture(name="workspace")
def workspace_fixture(tmp_path):
    return Workspace(tmp_path, {"lstm": "quadratic"})


@pytest.fixture(name="cells")
def cells_fixture(workspace):
    cells = []
    for units, adam in ((10, 2.0), (40, 4.0)):
        stage = Evaluation(f"u{units}", ("lstm",), (f"--task_option=layers=({units},)",))
        write_stage(workspace.path(stage), adam)
        cells.append(Cell(f"{units} units", stage, "1 layer", units))
    return cells


def test_curves(cells, workspace):
    output = outputs.curves(cells, workspace)
    assert [axes.get_title() for axes in output.figure.axes] == ["10 units", "40 units"]
    legend = [text.get_text() for text in output.figure.legends[0].get_texts()]
    assert legend == ["lstm (CoordinatewiseLSTM)", "Adam (tuned)"]

    header, *rows = output.rows
    assert header == ("panel", "optimizer", "step", "mean", "half_width")
    assert len(rows) == 2 * 2 * 2 and rows[-1] == ("40 units", "Adam", 1, "4", "nan")
    assert output.files("mine") == {"mine.png": output.figure, "mine.csv": output.rows}
    first, second = output.summary["panels"]
    assert first["command"] == (
        "l2l-evaluate --preset=lstm=quadratic '--task_option=layers=(10,)' "
        f"--output_dir={workspace.folder}/evaluations/u10"
    )
    assert (first["task"], first["steps"], first["wall_seconds"]) == ("t", 1, 12.5)
    lstm, adam = second["results"]
    assert lstm["ratio_to_best_baseline"] == 0.25
    assert (lstm["tuned_on_edge"], adam["tuned_on_edge"]) == (False, True)
    assert adam["learning_rate"] == 0.1


def test_finals(cells, workspace):
    output = outputs.finals(cells, "units", workspace)
    (axes,) = output.figure.axes
    assert axes.get_title() == "1 layer"
    lines = [container.lines[0].get_ydata().astype(float) for container in axes.containers]
    np.testing.assert_array_equal(lines, [[1.0, 1.0], [2.0, 4.0]])
    curves = outputs.curves(cells, workspace)
    assert (output.rows, output.summary) == (curves.rows, curves.summary)


def make_score(optimizer, problem, ratio):
    ratios = testbed.Ratio(ratio, math.nan, math.nan), testbed.Ratio(1.0, math.nan, math.nan)
    own = (problem, optimizer, 480, "Adam", 0.1, False, 2.0, 1.0, 1.0)
    return testbed.Score(*own, *ratios, 0.7, None, None)


def test_ablations(workspace):
    workspace = Workspace(workspace.folder, {"all": "digits_mlp", "without": "digits_mlp"})
    stage = Evaluation("ablations", ("all", "without"), ("--task=general",))
    with pytest.raises(ValueError, match="Expected the folder of a report, with testbed.json"):
        outputs.ablations(stage, workspace)
    ratios = {"all": {"a": 0.5, "b": 0.8}, "without": {"a": 0.9, "b": math.inf}}
    scores = [
        make_score(k, task, ratio) for k, own in ratios.items() for task, ratio in own.items()
    ]
    testbed.write_report(scores, workspace.path(stage), {})
    output = outputs.ablations(stage, workspace)
    header, *rows = output.rows
    assert header == ("rule", "task", "ratio", "low", "high", "mean_loss_ratio")
    assert rows[0] == ("all", "a", "0.5", "nan", "nan", "0.7")
    assert rows[-1] == ("without", "b", "inf", "nan", "nan", "0.7")
    (axes,) = output.figure.subfigs[0].axes
    assert [text.get_text() for text in axes.texts] == ["0.632", "inf"]  # Geometric means.
    assert [text.get_text() for text in axes.get_yticklabels()] == ["all", "without"]
    # Ratios beyond the axis are at its edge.
    assert axes.lines[1].get_xdata().tolist() == [0.9, 10.0]
    results = output.summary["results"]
    assert [(r["optimizer"], r["worst_problem"]) for r in results] == [
        ("all", "b"),
        ("without", "b"),
    ]
    assert output.summary["command"].startswith("l2l-evaluate --preset=all=digits_mlp")


def test_a_missing_report_is_said(cells, workspace):
    (workspace.path(cells[1].evaluation) / "curves.csv").unlink()
    with pytest.raises(ValueError, match="Expected the folder of a report.*u40"):
        outputs.curves(cells, workspace)


def test_tensor_responses_of_rules():
    output = outputs.tensorwise_rules({"untrained": TensorwiseLSTM(seed=0)}, steps=3)
    header, first, *rest = output.rows
    assert header == ("rule", "gradients", "step", "step_sizes", "sizes", "cosines")
    assert (first[0], first[2]) == ("untrained", 1) and len(rest) % 3 == 2
    assert all(-1.01 <= float(row[-1]) <= 1.01 for row in (first, *rest))
    axes = output.figure.axes
    assert [a.get_title() for a in axes] == ["untrained"] * 3
    assert {a.get_ylabel(): a.get_yscale() for a in axes} == {
        "step size (of Adam: learning rate)": "log",
        "size of the update (RMS)": "log",
        "cosine of update and −gradient": "linear",
    }


def test_update_maps(workspace):
    output = outputs.update_maps({"lstm": 2.0}, workspace)
    axes = output.figure.subfigs[0].axes[0]
    assert axes.get_title() == "lstm (CoordinatewiseLSTM)"
    assert axes.get_xlabel() == "gradient, in units of 2"
    assert output.summary == {"scales": {"lstm": 2.0}}
    _, *rows = output.rows
    assert {rule for rule, *_ in rows} == {"lstm"}

    def values(kind, which):
        return [(float(x), float(y)) for _, *names, x, y in rows if names == [kind, which]]

    rule = workspace.load("lstm")[0]
    first = values("map", "first step")
    assert (first[0][0], first[-1][0]) == (-3.0, 3.0)
    gradients = 2.0 * np.float32([x for x, _ in first])
    in_turn = "after 10 gradients of 1 and -1 in turn"
    for which, history in (("first step", []), (in_turn, [2.0, -2.0] * 5)):
        expected = updates_after(rule, history, gradients)
        actual = [y for _, y in values("map", which)]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    response = values("response", "gradient of 3")
    assert [x for x, _ in response] == list(range(31))
    expected = impulse_responses(rule, [6.0], 30)[0]
    np.testing.assert_allclose([y for _, y in response], expected, rtol=1e-3, atol=1e-6)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
