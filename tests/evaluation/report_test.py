"""Tests of reports: tables, CSV, JSON, figures, and how they are written."""

import csv
import io
import json

import numpy as np
import pytest

from l2l_keras.evaluation import (
    Comparison,
    Result,
    Tuning,
    curves_csv,
    figure,
    mean_and_interval,
    table,
    to_json,
    write_report,
)

FILES = ["curves.csv", "curves.png", "results.json", "table.md", "table.txt"]


def make_result(name, factor, tuning, runs=5):
    generator = np.random.default_rng(0)
    curves = np.exp(generator.normal(0, 0.1, (runs, 1)) - factor * np.arange(11))
    rate = 1.0 if tuning is None else tuning.best
    return Result(name, rate, tuning, curves.astype(np.float32), window=3, seconds=1.25)


@pytest.fixture
def comparison():
    inside = Tuning((0.01, 0.1, 1.0), (2.0, 1.0, np.inf))
    edge = Tuning((0.01, 0.1, 1.0), (3.0, 2.0, 1.0))
    return Comparison(
        task="digits",
        steps=10,
        seeds=(0, 1, 2, 3, 4),
        tuning_seeds=(0,),
        window=3,
        results=(
            make_result("lstm", 0.3, None),
            make_result("Adam", 0.2, inside),
            make_result("SGD", 0.1, edge),
        ),
    )


@pytest.fixture
def diverged():
    """One run, of which one optimizer made infinite and another not-a-number losses."""
    tuning = Tuning((0.1, 1.0), (np.inf, np.inf))
    nan = make_result("lstm", 0.3, None, runs=1)
    nan.curves[:, 4:] = np.nan
    inf = make_result("SGD", 0.3, tuning, runs=1)
    inf.curves[:, 4:] = np.inf
    return Comparison("digits", 10, (0,), (0,), 3, (nan, inf))


def test_table_ranks_and_aligns(comparison):
    lines = table(comparison).splitlines()
    assert [line.split()[0] for line in lines[:5]] == [
        "optimizer", "---------", "lstm", "Adam", "SGD",
    ]  # fmt: skip
    assert len({len(line) for line in lines[:5]}) == 1
    for result, line in zip(comparison.results, lines[2:5], strict=True):
        assert f"{result.mean_final:.4g} ± {result.interval:.2g}" in line
        assert f"{comparison.ratio(result.name):.3g}" in line.split()
    assert "not tuned" in lines[2]
    assert "0.1" in lines[3].split()
    assert "1*" in lines[4].split()


def test_table_says_what_it_shows(comparison):
    text = table(comparison)
    assert "task digits, 10 steps, 5 fresh runs; final loss: mean of the last 3 losses" in text
    assert "* the best learning rate is the last one tried" in text
    inside = Comparison("digits", 10, (0,), (0,), 3, comparison.results[:2])
    assert "*" not in table(inside)


def test_markdown_table_has_as_many_cells_in_every_row(comparison):
    text = table(comparison, markdown=True)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert {row.count("|") for row in rows} == {7}
    assert set(rows[1]) <= set("|-: ")


def test_table_of_diverged_runs(diverged):
    text = table(diverged)
    assert "inf" in text
    assert "nan" not in text
    assert "±" not in text


def test_csv_holds_means_and_intervals(comparison):
    rows = list(csv.DictReader(io.StringIO(curves_csv(comparison))))
    assert len(rows) == 3 * 11
    for result in comparison.results:
        own = [row for row in rows if row["optimizer"] == result.name]
        assert [int(row["step"]) for row in own] == list(range(11))
        mean, half_width = mean_and_interval(result.curves)
        np.testing.assert_allclose([float(row["mean"]) for row in own], mean, rtol=1e-5)
        np.testing.assert_allclose([float(r["half_width"]) for r in own], half_width, rtol=1e-5)


def test_json_holds_everything(comparison):
    content = json.loads(to_json(comparison, {"flags": {"seed": 7}}))
    assert content["settings"] == {
        "task": "digits",
        "steps": 10,
        "seeds": [0, 1, 2, 3, 4],
        "tuning_seeds": [0],
        "window": 3,
        "flags": {"seed": 7},
    }
    assert content["best_baseline"] == "Adam"
    assert {"l2l_keras", "keras", "tensorflow", "numpy", "python"} <= set(content["versions"])
    lstm, adam, sgd = content["results"]
    assert lstm["tuning"] is None
    assert lstm["learned"] is True
    assert adam["tuning"] == {
        "learning_rates": [0.01, 0.1, 1.0],
        "mean_final_losses": [2.0, 1.0, None],
        "on_edge": False,
    }
    assert sgd["tuning"]["on_edge"] is True
    assert adam["final_losses"] == comparison["Adam"].final.tolist()
    assert lstm["ratio_to_best_baseline"] == comparison.ratio("lstm")


def test_json_is_strict(diverged):
    def refuse(constant):
        raise AssertionError(f"not JSON: {constant}")

    content = json.loads(to_json(diverged), parse_constant=refuse)
    assert content["results"][0]["mean_final_loss"] is None
    assert content["results"][0]["interval_half_width"] is None


def test_figure_shows_all_optimizers_the_learned_one_in_front(comparison):
    axes = figure(comparison).axes[0]
    assert axes.get_yscale() == "log"
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["lstm (learned, not tuned)", "Adam (tuned, 0.1)", "SGD (tuned, 1)"]
    lstm, adam, sgd = lines.values()
    assert lstm.get_linewidth() > max(adam.get_linewidth(), sgd.get_linewidth())
    assert lstm.get_zorder() > max(adam.get_zorder(), sgd.get_zorder())
    assert len({line.get_color() for line in axes.lines}) == 3
    assert len(axes.collections) == 3  # The bands.
    np.testing.assert_allclose(adam.get_ydata(), comparison["Adam"].curves.mean(0), rtol=1e-6)


def test_a_baseline_keeps_its_colour_when_the_ranking_changes(comparison):
    slow_adam = make_result("Adam", 0.05, comparison["Adam"].tuning)
    other = Comparison(
        "digits", 10, (0,), (0,), 3, (comparison["lstm"], slow_adam, comparison["SGD"])
    )

    def colours(drawing):
        return {line.get_label().split()[0]: line.get_color() for line in drawing.axes[0].lines}

    assert colours(figure(comparison)) == colours(figure(other))


def test_figure_of_diverged_runs_can_be_drawn(diverged):
    drawing = figure(diverged)
    drawing.savefig(io.BytesIO(), format="png")
    low, high = drawing.axes[0].get_ylim()
    assert 0 < low < 1 < high < 10


def test_figure_of_negative_losses_has_a_linear_scale(comparison):
    for result in comparison.results:
        result.curves[:] -= 2.0  # As of a similarity.
    drawing = figure(comparison)
    drawing.savefig(io.BytesIO(), format="png")
    axes = drawing.axes[0]
    assert axes.get_yscale() == "linear"
    means = [result.curves.mean(axis=0) for result in comparison.results]
    low, high = axes.get_ylim()
    assert low < np.min(means) < np.max(means) < high
    for mean in means:
        assert any(np.allclose(line.get_ydata(), mean) for line in axes.lines)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_figure_without_anything_to_show_can_be_drawn(diverged, value):
    for result in diverged.results:
        result.curves[:] = value
    figure(diverged).savefig(io.BytesIO(), format="png")


def test_write_report_writes_all_files(comparison, tmp_path):
    paths = write_report(comparison, tmp_path / "new" / "report")
    assert sorted(path.name for path in paths) == FILES
    assert sorted(path.name for path in (tmp_path / "new" / "report").iterdir()) == FILES
    contents = {path.name: path.read_bytes() for path in paths}
    assert contents["table.txt"].decode() == table(comparison)
    assert contents["table.md"].decode() == table(comparison, markdown=True)
    assert contents["curves.csv"].decode() == curves_csv(comparison)
    assert contents["results.json"].decode() == to_json(comparison)
    assert contents["curves.png"].startswith(b"\x89PNG")


def test_write_report_replaces_its_own_files_only(comparison, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_report(comparison, tmp_path, {"first": True})
    write_report(comparison, tmp_path, {"first": False})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "notes.txt"])
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "results.json").read_text())["settings"]["first"] is False


def test_a_report_that_fails_leaves_the_old_one(comparison, tmp_path):
    write_report(comparison, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        write_report(comparison, tmp_path, {"not JSON": object()})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_cannot_be_replaced_leaves_nothing_half_written(comparison, tmp_path):
    (tmp_path / "results.json").mkdir()  # A file cannot be renamed to a folder.
    with pytest.raises(OSError):
        write_report(comparison, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert (tmp_path / "table.txt").read_text() == table(comparison)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
