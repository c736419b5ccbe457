"""Tests of reports: tables, CSV, JSON, how they are written and read."""

import csv
import json
import re

import numpy as np
import pytest

from l2l_keras.evaluation import mean_and_interval, read_curves, table, write_report
from l2l_keras.evaluation.plots import curves_of
from tests.evaluation.comparisons import diverged, learned_and_baselines, make_comparison

FILES = ["curves.csv", "curves.png", "results.json", "table.md", "table.txt"]


@pytest.fixture(name="comparison")
def comparison_fixture():
    return learned_and_baselines()


@pytest.fixture(name="report")
def report_fixture(comparison, tmp_path):
    folder = tmp_path / "new" / "report"
    write_report(comparison, folder, {"flags": {"seed": 7}})
    return folder


class TestTable:
    def test_it_ranks_and_aligns(self, comparison):
        text = table(comparison)
        lines = text.splitlines()
        names = [line.split()[0] for line in lines[:5]]
        assert names == ["optimizer", "---------", "lstm", "Adam", "SGD"]
        assert len({len(line) for line in lines[:5]}) == 1
        rates = ("not tuned", "0.1", "1*")
        for result, rate, line in zip(comparison.results, rates, lines[2:5], strict=True):
            final = f"{result.mean_final:.4g} ± {result.interval:.2g}"
            ratio = f"{comparison.ratio(result.name):.3g}"
            equal = f"{comparison.loss_at_equal_time(result):.4g}"
            cells = [result.name, rate, final, f"{result.mean_loss:.4g}", equal, ratio, "1.25"]
            assert [cell.strip() for cell in re.split("  +", line)] == cells
        assert "task digits, 10 steps, 5 fresh runs; training loss: the mean of the last 3" in text
        assert "* the best learning rate is the last one tried" in text
        assert "*" not in table(make_comparison(*comparison.results[:2]))

    def test_markdown_has_as_many_cells_in_every_row(self, comparison):
        text = table(comparison, markdown=True)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert [row.count("|") for row in rows] == [8] * 5
        assert set(rows[1]) <= set("|-: ")

    def test_diverged_runs(self):
        text = table(diverged())
        assert "inf" in text and "nan" not in text and "±" not in text


class TestReport:
    def test_all_files_are_written(self, comparison, report):
        assert sorted(path.name for path in report.iterdir()) == FILES
        assert (report / "table.txt").read_text() == table(comparison)
        assert (report / "table.md").read_text() == table(comparison, markdown=True)
        assert (report / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_csv_holds_means_and_intervals(self, comparison, report):
        with (report / "curves.csv").open() as file:
            rows = list(csv.reader(file))
        assert rows[0] == ["optimizer", "step", "mean", "half_width"]
        names = [result.name for result in comparison.results]
        assert [row[:2] for row in rows[1:]] == [[n, str(k)] for n in names for k in range(11)]
        mean, half_width = mean_and_interval(comparison["lstm"].curves)
        assert rows[11] == ["lstm", "10", f"{mean[10]:.6g}", f"{half_width[10]:.6g}"]

    def test_json_holds_everything(self, comparison, report):
        content = json.loads((report / "results.json").read_text())
        seeds = {"seeds": [0, 1, 2, 3, 4], "tuning_seeds": [0]}
        own = {"task": "digits", "steps": 10, **seeds, "window": 3, "flags": {"seed": 7}}
        assert content["settings"] == own
        assert content["best_baseline"] == "Adam"
        assert {"l2l_keras", "keras", "tensorflow", "numpy", "python"} <= set(content["versions"])
        lstm, adam, sgd = content["results"]
        assert (lstm["learned"], lstm["learning_rate"], lstm["tuning"]) == (True, 1.0, None)
        assert lstm["ratio_to_best_baseline"] == comparison.ratio("lstm")
        assert sgd["tuning"]["on_edge"] is True
        own, rates, losses = comparison["Adam"], [0.01, 0.1, 1.0], [2.0, 1.0, None]
        tuning = {"learning_rates": rates, "mean_final_losses": losses, "on_edge": False}
        assert adam["tuning"] == tuning
        assert adam["final_losses"] == own.final.tolist()
        assert (adam["mean_final_loss"], adam["mean_loss"]) == (own.mean_final, own.mean_loss)

    def test_json_is_strict(self, tmp_path):
        def refuse(constant):
            raise AssertionError(f"not JSON: {constant}")

        write_report(diverged(), tmp_path)
        text = (tmp_path / "results.json").read_text()
        content = json.loads(text, parse_constant=refuse)
        assert content["results"][0]["mean_final_loss"] is None
        assert content["results"][0]["interval_half_width"] is None
        curve = read_curves(tmp_path)[0]
        assert curve.final == np.inf and np.isnan(curve.interval)

    def test_only_its_own_files_are_replaced(self, comparison, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        write_report(comparison, tmp_path, {"first": True})
        write_report(comparison, tmp_path, {"first": False})
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert json.loads((tmp_path / "results.json").read_text())["settings"]["first"] is False

    def test_one_that_fails_leaves_the_old_one(self, comparison, report):
        before = {path.name: path.read_bytes() for path in report.iterdir()}
        with pytest.raises(TypeError):
            write_report(comparison, report, {"not JSON": object()})
        assert {path.name: path.read_bytes() for path in report.iterdir()} == before

    def test_a_file_that_cannot_be_replaced_leaves_nothing_half_written(self, comparison, tmp_path):
        (tmp_path / "results.json").mkdir()  # A file cannot be renamed to a folder.
        with pytest.raises(OSError):
            write_report(comparison, tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == FILES
        assert (tmp_path / "table.txt").read_text() == table(comparison)


class TestReadCurves:
    def test_they_are_those_of_the_comparison(self, comparison, report):
        for read, own in zip(read_curves(report), curves_of(comparison), strict=True):
            assert (read.name, read.learned, read.label) == (own.name, own.learned, own.label)
            # The CSV file holds six digits.
            np.testing.assert_allclose(read.mean, own.mean, rtol=1e-5)
            np.testing.assert_allclose(read.half_width, own.half_width, rtol=1e-5)
            assert (read.final, read.interval) == (own.final, own.interval)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("curves.csv", None),
            ("results.json", "{"),
            ("curves.csv", "optimizer,step,mean,half_width\nNAG,0,1,1\n"),
            ("curves.csv", "optimizer,step,mean,half_width\nAdam,0,one,1\n"),
        ],
    )
    def test_a_damaged_report_is_refused(self, report, name, content):
        (report / name).unlink()
        if content is not None:
            (report / name).write_text(content)
        with pytest.raises(ValueError, match=r"Expected the folder of a report.*Received: '.*rep"):
            read_curves(report)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
