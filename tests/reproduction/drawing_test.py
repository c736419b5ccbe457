"""Tests of drawings: what is on which axes, and one legend for all."""

import numpy as np
import pytest

from l2l_keras.evaluation import Curve
from l2l_keras.reproduction import drawing


def make_curve(name, final, learned=False, interval=0.1):
    mean = np.geomspace(4.0, max(final, 0.1), 11) if np.isfinite(final) else np.full(11, np.inf)
    return Curve(name, learned, 0.1, np.arange(len(mean)), mean, 0.1 * mean, final, interval)


def texts(figure):
    """Texts of the only legend of a figure, which can be drawn."""
    figure.draw_without_rendering()
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_panels_stand_side_by_side_with_one_legend():
    panels = {
        "100 steps": [make_curve("lstm", 0.5, learned=True), make_curve("Adam", 1.0)],
        "200 steps": [make_curve("lstm", 2.0, learned=True), make_curve("SGD", 1.0)],
    }
    figure = drawing.draw_panels(panels, {"lstm": "an LSTM"})
    assert texts(figure) == ["an LSTM", "Adam", "SGD"]
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("100 steps", "200 steps")
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "")
    assert left.get_yscale() == right.get_yscale() == "log"
    colours = [{line.get_label(): line.get_color() for line in a.lines} for a in figure.axes]
    assert colours[0]["an LSTM"] == colours[1]["an LSTM"]
    assert len({*colours[0].values(), *colours[1].values()}) == 3


def test_finals_show_a_line_of_each_optimizer_over_the_variable():
    groups = {
        "1 layer": {
            10: [make_curve("lstm", 0.5, True), make_curve("Adam", 1.0)],
            40: [make_curve("lstm", 0.25, True, interval=np.nan), make_curve("Adam", np.inf)],
        },
        "2 layers": {10: [make_curve("lstm", 0.75, True), make_curve("Adam", 2.0)]},
    }
    figure = drawing.draw_finals(groups, "units", {})
    assert texts(figure) == ["lstm", "Adam"]
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlabel() == "units"
    assert list(left.get_xticks()) == [10, 40]
    lstm, adam = (container.lines[0] for container in left.containers)
    np.testing.assert_array_equal(lstm.get_ydata().astype(float), [0.5, 0.25])
    np.testing.assert_allclose(lstm.get_xdata().astype(float), [10, 40], atol=1)
    np.testing.assert_array_equal(adam.get_ydata().astype(float), [1.0, np.nan])
    ((segments,),) = (container.lines[2] for container in right.containers[:1])
    np.testing.assert_allclose(segments.get_segments()[0][:, 1], [0.65, 0.85])
    below_zero = drawing.draw_finals({"all": {1: [make_curve("Adam", -1.0)]}}, "x", {})
    assert (left.get_yscale(), below_zero.axes[0].get_yscale()) == ("log", "linear")


def test_update_maps_have_two_rows():
    gradients = np.linspace(-1, 1, 5)
    maps = {
        "SGD": (gradients, {"first": -gradients, "later": -2 * gradients}),
        "sign": (10 * gradients, {"first": -np.sign(gradients), "later": gradients}),
    }
    steps = np.arange(3)
    responses = {name: (steps, {"of 1": np.array([-1.0, -0.5, 0.0])}) for name in maps}
    figure = drawing.draw_update_maps(maps, responses, {"SGD": 1.0, "sign": 0.5}, {})
    upper, lower = figure.subfigs
    assert [axes.get_title() for axes in upper.axes] == ["SGD", "sign"]
    assert [line.get_label() for line in upper.axes[0].lines[:2]] == ["first", "later"]
    np.testing.assert_array_equal(upper.axes[1].lines[0].get_xdata(), 10 * gradients)
    units = [axes.get_xlabel() for axes in upper.axes]
    assert units == ["gradient, in units of 1", "gradient, in units of 0.5"]
    assert "steps since that gradient" in lower.axes[0].get_xlabel()
    assert [[t.get_text() for t in part.legends[0].get_texts()] for part in (upper, lower)] == [
        ["first", "later"],
        ["of 1"],
    ]


@pytest.mark.parametrize("panels, count, letters", [(1, 6, 11), (2, 7, 30), (4, 3, 60), (4, 2, 5)])
def test_the_legend_fits_into_the_figure(panels, count, letters):
    names = [str(k) * letters for k in range(count)]
    curves = [make_curve(name, 1.0) for name in names]
    figure = drawing.draw_panels({str(k): curves for k in range(panels)}, {})
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert box.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
