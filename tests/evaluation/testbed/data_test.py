"""Tests of the testbed's data."""

import numpy as np
import pytest

from l2l_keras.evaluation.testbed import data

MADE = {
    "halves": lambda: data.halves(np.arange(40.0).reshape(20, 2), np.arange(20)),
    "patches": lambda: data.patches(size=5, count=30),
    "pixels": data.pixels,
    "characters": lambda: data.characters(length=12, vocabulary=20),
    "words": lambda: data.words(context=2, vocabulary=50),
    "spirals": lambda: data.spirals(count=50),
    "chaotic_series": lambda: data.chaotic_series(length=8, count=60),
}


@pytest.mark.parametrize("name", MADE)
def test_data_are_deterministic_and_splits_do_not_share_examples(name):
    made, again = MADE[name](), MADE[name]()
    assert set(made) == {"train", "validation", "test"}
    for split, (x, y) in made.items():
        assert len(x) == len(y) > 0, split
        for values, same in zip((x, y), again[split], strict=True):
            assert np.isfinite(values).all(), split
            np.testing.assert_array_equal(values, same)
    if name not in ("characters", "words", "pixels"):  # These may repeat.
        seen = {row.tobytes() for row in made["validation"][0]}
        fresh = [row.tobytes() not in seen for row in made["test"][0]]
        assert np.mean(fresh) > 0.99


def test_patches_are_of_the_side_that_their_label_says():
    made = data.patches(size=6, count=40)
    for split, lower in (("validation", False), ("test", True)):
        for patch, label in zip(*made[split], strict=True):
            whole = data.photograph(data.PHOTOGRAPHS[label // 2])
            half = np.array_split(np.array_split(whole, 2)[int(lower)], 2, axis=1)[label % 2]
            corners = np.argwhere((half[:-5, :-5] == patch[0, 0]).all(axis=-1))
            assert any((half[t : t + 6, s : s + 6] == patch).all() for t, s in corners)
    assert set(made["test"][1].tolist()) == {0, 1, 2, 3}


def test_the_colour_of_a_pixel_is_that_of_its_position():
    (positions, colours), whole = data.pixels()["test"], data.photograph("flower.jpg")[::4, ::4]
    np.testing.assert_array_equal(positions[0], [-1.0, -1.0])
    np.testing.assert_array_equal(positions[-1], [1.0, 1.0])
    np.testing.assert_array_equal(colours[whole.shape[1]], whole[1, 0])


def test_the_label_is_the_next_character():
    x, y = data.characters(length=12, vocabulary=20)["test"]
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    np.testing.assert_array_equal(y[:-1, -1], x[1:, 0])
    assert x.max() == 20  # One for all characters that are rare.
    counts = np.bincount(x.ravel(), minlength=21)
    assert counts[0] == counts[:20].max()


def test_the_label_is_the_word_in_the_middle():
    x, y = data.words(context=2, vocabulary=50)["test"]
    np.testing.assert_array_equal(x[1:, 1], y[:-1])
    np.testing.assert_array_equal(x[:-1, 2], y[1:])


def test_the_label_is_a_later_value_of_the_series():
    x, y = data.chaotic_series(length=8, ahead=3, count=60)["test"]
    np.testing.assert_array_equal(x[1:, :-1], x[:-1, 1:])
    np.testing.assert_array_equal(x[3:, -1], y[:-3])


def test_tables_are_standardized():
    table = data.standardized(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_array_equal(table, [[-1.0, 0.0], [1.0, 0.0]])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
