"""Tests of curves: the same from a comparison and from its report, and how they are drawn."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from l2l_keras import tasks
from l2l_keras.evaluation import (
    BASELINES,
    Curve,
    compare,
    curves_of,
    draw_curves,
    line_styles,
    log_scale,
    read_curves,
    write_report,
)


def make_curve(name, learned=False, final=1.0, start=4.0):
    mean = np.geomspace(start, final, 11)
    return Curve(name, learned, 0.1, mean, 0.1 * mean, final, 0.1 * final)


@pytest.fixture(name="comparison", scope="module")
def comparison_fixture():
    task = tasks.Quadratic(dimension=2, functions=3)
    task.jit_compile = False
    two = {name: BASELINES[name] for name in ("Adam", "SGD")}
    return compare(task, {}, steps=4, seeds=[0], baselines=two)


def test_curves_are_the_same_from_a_report(comparison, tmp_path):
    write_report(comparison, tmp_path)
    for read, own in zip(read_curves(tmp_path), curves_of(comparison), strict=True):
        assert (read.name, read.learned) == (own.name, own.learned)
        # The CSV file holds six digits.
        np.testing.assert_allclose(read.mean, own.mean, rtol=1e-5)
        np.testing.assert_allclose(read.half_width, own.half_width, rtol=1e-5)
        assert (read.final, read.interval) == (own.final, own.interval)
        assert read.label == own.label


def test_what_is_not_finite_is_read_as_such(comparison, tmp_path):
    write_report(comparison, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    content["results"][0] |= {"mean_final_loss": None, "interval_half_width": None}
    (tmp_path / "results.json").write_text(json.dumps(content))
    curve = read_curves(tmp_path)[0]
    assert curve.final == np.inf
    assert np.isnan(curve.interval)


@pytest.mark.parametrize("damage", ["nothing", "no CSV", "not JSON", "other names", "not a number"])
def test_a_report_that_cannot_be_read_is_said(comparison, tmp_path, damage):
    folder = tmp_path / "report"
    if damage != "nothing":
        write_report(comparison, folder)
    if damage == "no CSV":
        (folder / "curves.csv").unlink()
    elif damage == "not JSON":
        (folder / "results.json").write_text("{")
    elif damage == "other names":
        (folder / "curves.csv").write_text("optimizer,step,mean,half_width\nNAG,0,1,1\n")
    elif damage == "not a number":
        (folder / "curves.csv").write_text("optimizer,step,mean,half_width\nAdam,0,one,1\n")
    with pytest.raises(ValueError, match=r"Expected the folder of a report.*Received: '.*report'"):
        read_curves(folder)


def test_styles_do_not_depend_on_what_comes_later():
    few = line_styles([make_curve("lstm", True), make_curve("Adam")])
    more = line_styles(
        [make_curve("lstm", True), make_curve("Adam"), make_curve("gru", True), make_curve("SGD")]
    )
    assert few == {name: more[name] for name in ("lstm", "Adam")}
    assert len({style["color"] for style in more.values()}) == 4
    assert more["lstm"]["zorder"] > more["SGD"]["zorder"]


def test_curves_are_drawn_best_first_with_the_labels_given():
    axes = Figure().add_subplot()
    curves = [make_curve("lstm", True, final=2.0), make_curve("Adam", final=1.0)]
    draw_curves(axes, curves, line_styles(curves), {"lstm": "an LSTM"})
    assert [line.get_label() for line in axes.lines] == ["Adam (tuned, 0.1)", "an LSTM"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), curves[0].mean)
    assert axes.get_xlim() == (0, 10)
    low, high = axes.get_ylim()
    assert low < 1.0 < 4.0 < high


def test_long_runs_are_drawn_in_stretches():
    # A loss that falls by one a step, and noise of a period of ten steps.
    steps = np.arange(1001)
    noise = np.sin(2 * np.pi * steps / 10)
    losses = 2000.0 - steps + 100 * noise
    curve = Curve("Adam", False, 0.1, losses, np.full(1001, 5.0), 1000.0, 1.0)
    axes = Figure().add_subplot()
    draw_curves(axes, [curve], line_styles([curve]))
    x, y = axes.lines[0].get_data()
    assert len(x) == 51 and x[0] == 0 and y[0] == losses[0]
    # Stretches of twenty steps: whole periods, so that nothing of the noise is left.
    np.testing.assert_allclose(y, 2000.0 - x, atol=1e-6)
    assert axes.get_xlim() == (0, 1000)


def test_a_curve_that_shoots_up_does_not_press_the_others_flat():
    axes = Figure().add_subplot()
    curves = [make_curve("lstm", True), make_curve("SGD", final=1e9)]
    draw_curves(axes, curves, line_styles(curves))
    assert axes.get_ylim()[1] < 100


@pytest.mark.parametrize("lowest, highest", [(1.2, 2.9), (0.12, 0.9), (0.5, 30.0), (1e-6, 1e3)])
def test_a_log_scale_always_has_numbers(lowest, highest):
    figure = Figure()
    axes = figure.add_subplot()
    log_scale(axes, lowest, highest)
    figure.draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [
        label.get_text()
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= place <= high and label.get_text()
    ]
    assert len(shown) >= 2
    if highest < 100 * lowest:
        assert all(low <= float(text) <= high for text in shown)


def test_curves_are_values():
    curve = make_curve("Adam")
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.final = 0.0


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
