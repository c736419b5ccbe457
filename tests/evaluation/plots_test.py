"""Tests of figures: mean loss curves, and ratios on several problems."""

import io
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from l2l_keras.evaluation import Curve, figure
from l2l_keras.evaluation.plots import draw_curves, line_styles, log_scale, ratio_figure
from l2l_keras.evaluation.testbed import Ratio, Score
from tests.evaluation.comparisons import diverged, learned_and_baselines


def make_curve(name, learned=False, final=1.0, start=4.0):
    mean = np.geomspace(start, final, 11)
    return Curve(name, learned, 0.1, np.arange(11), mean, 0.1 * mean, final, 0.1 * final)


def drawn(*curves, labels=None):
    axes = Figure().add_subplot()
    draw_curves(axes, curves, line_styles(curves), labels)
    return axes


def test_styles_do_not_depend_on_later_curves_or_ranks():
    names = ["lstm", "Adam", "gru", "SGD"]
    curves = [make_curve(name, learned=name in ("lstm", "gru")) for name in names]
    few, more = line_styles(curves[:2]), line_styles(curves)
    assert few == {name: more[name] for name in ("lstm", "Adam")}
    assert few == line_styles([curves[0], make_curve("Adam", final=0.1)])
    assert len({style["color"] for style in more.values()}) == 4


def test_curves_are_drawn_best_first_with_the_labels_given():
    curves = [make_curve("lstm", True, final=2.0), make_curve("Adam", final=1.0)]
    axes = drawn(*curves, labels={"lstm": "an LSTM"})
    assert [line.get_label() for line in axes.lines] == ["Adam (tuned, 0.1)", "an LSTM"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), curves[0].mean)
    assert axes.get_xlim() == (0, 10)
    low, high = axes.get_ylim()
    assert low < 1.0 < 4.0 < high


def test_long_runs_are_drawn_as_means_of_sections():
    # A loss that falls by one a step, and noise of a period of ten steps.
    steps = np.arange(1001)
    losses = 2000.0 - steps + 100 * np.sin(2 * np.pi * steps / 10)
    axes = drawn(Curve("Adam", False, 0.1, steps, losses, np.full(1001, 5.0), 1000.0, 1.0))
    x, y = axes.lines[0].get_data()
    assert len(x) == 51 and x[0] == 0 and y[0] == losses[0]
    # Sections of twenty steps: whole periods, in which the noise cancels.
    np.testing.assert_allclose(y, 2000.0 - x, atol=1e-6)
    assert axes.get_xlim() == (0, 1000)


def test_bands_on_a_log_scale_reach_as_far_down_as_up():
    mean, half_width = np.array([4.0, 2.0, 1.0]), np.array([0.0, 2.0, 3.0])
    axes = drawn(Curve("Adam", False, 0.1, np.arange(3), mean, half_width, 1.0, 3.0))
    (band,) = axes.collections
    edges = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert edges == {(0, 4.0), (1, 4.0), (1, 1.0), (2, 4.0), (2, 0.25)}


def test_a_diverging_curve_does_not_flatten_the_others():
    axes = drawn(make_curve("lstm", True), make_curve("SGD", final=1e9))
    assert axes.get_ylim()[1] < 100


@pytest.mark.parametrize("lowest, highest", [(1.2, 2.9), (0.12, 0.9), (0.5, 30.0), (1e-6, 1e3)])
def test_a_log_scale_always_has_numbers(lowest, highest):
    drawing = Figure()
    axes = drawing.add_subplot()
    log_scale(axes, lowest, highest)
    drawing.draw_without_rendering()
    low, high = axes.get_ylim()
    shown = [
        label.get_text()
        for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= tick <= high and label.get_text()
    ]
    assert len(shown) >= 2
    if highest < 100 * lowest:
        assert all(low <= float(text) <= high for text in shown)


class TestFigure:
    def test_all_optimizers_are_shown_the_learned_one_in_front(self):
        comparison = learned_and_baselines()
        (axes,) = figure(comparison).axes
        assert axes.get_yscale() == "log"
        lines = {line.get_label(): line for line in axes.lines}
        assert list(lines) == ["lstm (learned, not tuned)", "Adam (tuned, 0.1)", "SGD (tuned, 1)"]
        lstm, adam, sgd = lines.values()
        assert lstm.get_linewidth() > max(adam.get_linewidth(), sgd.get_linewidth())
        assert lstm.get_zorder() > max(adam.get_zorder(), sgd.get_zorder())
        assert len({line.get_color() for line in axes.lines}) == 3
        assert len(axes.collections) == 3  # The bands.
        np.testing.assert_allclose(adam.get_ydata(), comparison["Adam"].curves.mean(0), rtol=1e-6)

    def test_diverged_runs_can_be_drawn(self):
        drawing = figure(diverged())
        drawing.savefig(io.BytesIO(), format="png")
        low, high = drawing.axes[0].get_ylim()
        assert 0 < low < 1 < high < 10

    def test_negative_losses_have_a_linear_scale(self):
        comparison = learned_and_baselines()
        for result in comparison.results:
            result.curves[:] -= 2.0  # As of a similarity.
        (axes,) = figure(comparison).axes
        assert axes.get_yscale() == "linear"
        means = [result.curves.mean(axis=0) for result in comparison.results]
        low, high = axes.get_ylim()
        assert low < np.min(means) < np.max(means) < high
        np.testing.assert_allclose([line.get_ydata() for line in axes.lines], means, rtol=1e-5)

    @pytest.mark.parametrize("value", [np.nan, 0.0])
    def test_losses_that_a_log_scale_cannot_show_can_be_drawn(self, value):
        comparison = diverged()
        for result in comparison.results:
            result.curves[:] = value
        figure(comparison).savefig(io.BytesIO(), format="png")


def test_ratios_have_a_panel_for_each_length_and_a_row_for_each_problem():
    def score(problem, optimizer, steps, ratio):
        ratios = (Ratio(ratio, 0.9 * ratio, math.nan), Ratio(0.4, 0.3, 0.5))
        losses = (2.0, 0.5 * ratio, 0.5)
        return Score(problem, optimizer, steps, "NAG", 0.1, False, *losses, *ratios, 0.8, 0.6, 0.9)

    drawing = ratio_figure(
        [
            score("deep_relu", "mine", 100, 0.5),
            score("deep_relu", "mine", 1000, 0.8),
            score("series_gru", "mine", 100, 2.0),
            score("series_gru", "mine", 1000, math.inf),
            score("series_gru", "other", 100, 2.0),
        ]
    )
    panels = drawing.axes
    assert [axes.get_title() for axes in panels] == ["100 steps", "1,000 steps"]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["deep_relu", "series_gru"]
    low, high = panels[0].get_xlim()
    assert low < 0.5 and high > 2.0 and low * high == pytest.approx(1.0)
    beyond = [line.get_xydata() for line in panels[1].lines if line.get_marker() == ">"]
    np.testing.assert_allclose(np.concatenate(beyond), [[20.0, 1.0]], atol=0.25)
    assert [text.get_text() for text in drawing.legends[0].get_texts()] == ["mine", "other"]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
