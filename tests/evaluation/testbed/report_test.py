"""Tests of the testbed's reports."""

import dataclasses
import json
import math

import pytest

from l2l_keras.evaluation import testbed
from l2l_keras.evaluation.testbed import Ratio, Score

SCORE = Score(
    *("deep_relu", "mine", 100, "NAG", 0.1, False),
    *(2.0, 0.25, 0.5),  # Initial, final and baseline's loss.
    *(Ratio(0.5, 0.45, 0.55), Ratio(0.4, 0.3, 0.5), 0.8),
    *(0.6, 0.9),  # Shares of steps and seconds.
)
FAILED = Ratio(math.inf, math.nan, math.nan)


@pytest.fixture(name="scores")
def scores_fixture():
    make = dataclasses.replace
    gru = make(SCORE, problem="series_gru", ratio=Ratio(2.0, 1.8, 2.2))
    return [
        SCORE,
        make(SCORE, steps=1000, on_edge=True),
        make(gru, share_of_steps=None, share_of_seconds=None),
        make(gru, steps=1000, ratio=FAILED),
        make(gru, optimizer="other", default_ratio=FAILED, final_loss=math.inf),
    ]


@pytest.fixture(name="report")
def report_fixture(scores, tmp_path):
    testbed.write_report(scores, tmp_path / "report", {"flags": {"steps": 100}})
    return tmp_path / "report"


def test_there_is_a_table_for_every_optimizer_and_length(scores):
    text = testbed.table(scores)
    titles = [line for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**mine, 100 steps**", "**mine, 1,000 steps**", "**other, 100 steps**"]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:6]]
    numbers = ["0.5", "0.25", "0.50 (0.45 to 0.55)", "0.40", "0.80", "0.60", "0.90"]
    assert rows[2] == ["deep_relu", "NAG (0.1)", *numbers]
    assert rows[3][4:] == ["2.00 (1.80 to 2.20)", "0.40", "0.80", "not reached", "not reached"]
    assert "| all 2 (geometric mean) |" in text and "**1.000** (worst 2.00)" in text
    assert r"NAG (0.1\*)" in text


def test_all_files_are_written(scores, report):
    assert {path.name for path in report.iterdir()} == {"testbed.md", "testbed.png", "testbed.json"}
    assert (report / "testbed.md").read_text() == testbed.table(scores)
    assert (report / "testbed.png").read_bytes().startswith(b"\x89PNG")


def test_failures_are_reported(scores, report):
    assert "inf" in testbed.table(scores)
    content = json.loads((report / "testbed.json").read_text())
    assert content["scores"][3]["ratio"] == [None, None, None]
    assert content["settings"] == {"flags": {"steps": 100}}
    assert [summary["problems"] for summary in content["summaries"]] == [2, 2, 1]
    assert content["summaries"][1]["worst_problem"] == "series_gru"


def test_scores_are_read_from_the_report(scores, report):
    read = testbed.read_scores(report)
    assert read[0] == scores[0]
    assert repr(read) == repr(scores)  # NaN is not equal to itself.
    (report / "testbed.json").write_text("{}")
    for folder in (report, report / "none"):
        with pytest.raises(ValueError, match="Expected the folder of a report, with testbed.json"):
            testbed.read_scores(folder)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
