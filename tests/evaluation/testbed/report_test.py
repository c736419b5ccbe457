"""Tests of the testbed's reports."""

import json
import math

import pytest

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.testbed import Ratio, Score


def score(problem="deep_relu", optimizer="mine", steps=100, ratio=0.5, **others):
    values = {
        "problem": problem,
        "optimizer": optimizer,
        "steps": steps,
        "baseline": "NAG",
        "learning_rate": 0.1,
        "on_edge": False,
        "initial_loss": 2.0,
        "final_loss": 0.5 * ratio,
        "baseline_loss": 0.5,
        "ratio": Ratio(ratio, 0.9 * ratio, 1.1 * ratio),
        "default_ratio": Ratio(0.4, 0.3, 0.5),
        "area_ratio": 0.8,
        "share_of_steps": 0.6,
        "share_of_seconds": 0.9,
    }
    return Score(**{**values, **others})


@pytest.fixture(name="scores")
def scores_fixture():
    failed = Ratio(math.inf, math.nan, math.nan)
    return [
        score(),
        score(steps=1000, ratio=0.8, on_edge=True),
        score("series_gru", ratio=2.0, share_of_steps=None, share_of_seconds=None),
        score("series_gru", steps=1000, ratio=math.inf),
        score("series_gru", "other", default_ratio=failed, final_loss=math.inf),
    ]


def test_there_is_a_table_for_every_optimizer_and_length(scores):
    text = testbed.table(scores)
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**mine, 100 steps**", "**mine, 1,000 steps**", "**other, 100 steps**"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:6]]
    assert rows[2] == [
        "deep_relu",
        "NAG (0.1)",
        "0.5",
        "0.25",
        "0.50 (0.45 to 0.55)",
        "0.40",
        "0.80",
        "0.60",
        "0.90",
    ]
    assert rows[3][4:] == ["2.00 (1.80 to 2.20)", "0.40", "0.80", "not reached", "not reached"]
    assert "| all 2 (geometric mean) |" in text and "**1.000** (worst 2.00)" in text
    assert r"NAG (0.1\*)" in text


def test_failures_are_shown(scores):
    assert "inf" in testbed.table(scores)
    content = json.loads(testbed.to_json(scores, {"flags": {"steps": 100}}))
    assert content["scores"][3]["ratio"][0] is None
    assert content["settings"] == {"flags": {"steps": 100}}
    assert [summary["problems"] for summary in content["summaries"]] == [2, 2, 1]
    assert content["summaries"][1]["worst_problem"] == "series_gru"


def test_the_figure_has_a_panel_for_every_length_and_a_row_for_every_problem(scores):
    drawing = testbed.figure(scores)
    panels = drawing.axes
    assert [axes.get_title() for axes in panels] == ["100 steps", "1,000 steps"]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["deep_relu", "series_gru"]
    low, high = panels[0].get_xlim()
    assert low < 0.5 and high > 2.0 and low * high == pytest.approx(1.0)
    beyond = [line for line in panels[1].lines if line.get_marker() == ">"]
    assert [line.get_xydata().tolist() for line in beyond if len(line.get_xydata())] == [
        [[20.0, pytest.approx(1.0, abs=0.25)]]
    ]
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["mine", "other"]


def test_the_report_is_written(scores, tmp_path):
    paths = testbed.write_report(scores, tmp_path / "report", {})
    assert [path.name for path in paths] == ["testbed.md", "testbed.png", "testbed.json"]
    assert paths[0].read_text() == testbed.table(scores)
    assert paths[1].read_bytes().startswith(b"\x89PNG")


def test_scores_are_read_from_the_report(scores, tmp_path):
    testbed.write_report(scores, tmp_path, {})
    read = testbed.read_scores(tmp_path)
    assert read[0] == scores[0]
    # As text: what is not finite is not equal to itself.
    assert testbed.to_json(read, {}) == testbed.to_json(scores, {})
    assert read[3].ratio.mean == math.inf
    (tmp_path / "testbed.json").write_text("{}")
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match="Expected the folder of a report, with testbed.json"):
            testbed.read_scores(place)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
