"""Tests of generated data."""

import numpy as np
import pytest

from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.general import generated

MAKERS = {
    "teacher": lambda: generated.teacher(4, 2, count=300),
    "field": lambda: generated.field(count=300),
    "regions": lambda: generated.regions(3, count=300),
    "table": lambda: generated.table(8, count=300),
    "clusters": lambda: generated.clusters(3, 6, count=300),
    "mislabelled": lambda: generated.mislabelled(generated.clusters(3, 6, count=300), 0.5),
    "skewed": lambda: generated.skewed(generated.clusters(3, 6, count=300)),
    "correlated": lambda: generated.correlated(6, count=300),
    "textures": lambda: generated.textures(4, 8, count=300),
    "tokens": lambda: generated.tokens(9, 5, count=300),
    "text": lambda: generated.text(9, 5, count=300),
    "sums": lambda: generated.sums(
        {split: (x[:, None], y) for split, (x, y) in generated.clusters(10, 6, 300).items()}
    ),
    "waves": lambda: generated.waves(5, count=300),
    "responses": lambda: generated.responses(5, count=300),
    "bags": lambda: generated.bags(30, 3, count=300),
    "ratings": lambda: generated.ratings(10, 5, count=300),
}


@pytest.mark.parametrize("name", MAKERS)
def test_splits_are_equal_finite_disjoint_and_always_the_same(name):
    data, again = MAKERS[name](), MAKERS[name]()
    assert list(data) == list(SPLITS)
    for split in SPLITS:
        x, y = data[split]
        assert len(x) == len(y) == 100
        assert np.isfinite(x).all()
        assert np.isfinite(y).all()
        np.testing.assert_array_equal(x, again[split][0])
        np.testing.assert_array_equal(y, again[split][1])
    assert not np.array_equal(data["train"][0], data["validation"][0])
    assert {x.dtype.name for x, _ in data.values()} <= {"float32", "int32"}


def test_skewed_columns_have_long_tails_on_one_side_and_the_same_order():
    plain = generated.clusters(3, 8, count=3000)
    x, labels = (
        np.concatenate(part) for part in zip(*generated.skewed(plain).values(), strict=True)
    )
    before = np.concatenate([examples for examples, _ in plain.values()])
    np.testing.assert_array_equal(np.argsort(x, axis=0), np.argsort(before, axis=0))
    np.testing.assert_array_equal(labels, np.concatenate([y for _, y in plain.values()]))
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1.0, atol=1e-5)
    skews = np.mean(x**3, axis=0)
    assert skews.max() > 1.0 and skews.min() < -0.2


def test_a_teacher_s_targets_are_of_size_one():
    assert generated.teacher(4, 1, noise=0.0)["train"][1].std() == pytest.approx(1.0, rel=0.05)


def test_a_deeper_teacher_is_further_from_linear():
    def left(depth):
        """The part of the variance that no linear function explains."""
        x, y = generated.teacher(6, 4, count=9000, noise=0.0, depth=depth)["train"]
        return np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) / np.var(y)

    assert 0.02 < left(1) < left(3) < 0.9


def test_there_are_places_of_every_kind_of_region():
    x, labels = generated.regions(4)["train"]
    assert np.bincount(labels).min() > 0.05 * len(labels)
    # They are regions: the nearest other place is most often of the same kind.
    distances = ((x[:500, None] - x) ** 2).sum(axis=-1)
    nearest = np.argsort(distances, axis=1)[:, 1]
    assert np.mean(labels[nearest] == labels[:500]) > 0.9


def test_a_table_has_two_classes_of_about_one_size():
    labels = generated.table()["train"][1]
    assert set(np.unique(labels)) == {0.0, 1.0}
    assert 0.3 < labels.mean() < 0.7


def test_most_points_of_clusters_are_told_apart_by_where_they_are():
    for distance, lowest, highest in ((4.0, 0.9, 1.0), (1.0, 0.4, 0.8)):
        x, labels = generated.clusters(3, 12, 3000, distance)["train"]
        x = np.column_stack([x, np.ones(len(x))])
        fitted = x @ np.linalg.lstsq(x, np.eye(3)[labels], rcond=None)[0]
        assert lowest < np.mean(fitted.argmax(axis=1) == labels) <= highest


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_a_part_of_labels_is_drawn_at_random(part):
    data = generated.clusters(4, 6, 9000)
    for split, (x, drawn) in generated.mislabelled(data, part).items():
        assert x is data[split][0]
        assert np.mean(drawn != data[split][1]) == pytest.approx(0.75 * part, abs=0.03)
        assert drawn.dtype == data[split][1].dtype
        assert set(np.unique(drawn)) == set(range(4))


@pytest.mark.parametrize("condition", [1.0, 1000.0])
def test_features_have_the_condition_that_was_asked_for(condition):
    x, _ = generated.correlated(8, condition, count=30000)["train"]
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert values[-1] / values[0] == pytest.approx(condition, rel=0.15)


def test_the_kind_of_a_texture_is_the_direction_of_its_waves():
    x, labels = generated.textures(4, 24, count=600)["train"]
    assert x.shape == (200, 24, 24, 3)
    assert x.min() >= 0.0
    assert x.max() <= 1.0
    # Waves change most along their direction, the angle of the structure tensor.
    down, right = np.gradient(x.mean(axis=-1), axis=(1, 2))
    double = np.arctan2(2.0 * np.mean(down * right, (1, 2)), np.mean(right**2 - down**2, (1, 2)))
    kinds = np.round(double / 2.0 / (np.pi / 4)).astype(int) % 4
    assert np.mean(kinds == labels) > 0.8


def test_tokens_follow_from_those_before():
    """The most frequent successor of a token is far more frequent than chance."""
    x, y = generated.tokens(12, 8)["train"]
    assert x.shape == y.shape == (2000, 8)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    counts = np.zeros((12, 12))
    np.add.at(counts, (x.ravel(), y.ravel()), 1)
    assert counts.max(axis=1).sum() / counts.sum() > 3 / 12
    assert x.min() >= 0
    assert x.max() < 12


def test_a_text_is_of_few_frequent_and_many_rare_words():
    x, y = generated.text(10, 30, words=50)["train"]
    assert x.shape == y.shape == (24000, 30)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert x.min() == 0
    assert x.max() < 10
    # The last one may be cut off.
    words = [word for window in x for word in "".join(map(str, window)).split("0")[:-1]]
    assert {len(word) for word in words} == set(range(2, 8))
    found, counts = np.unique(words, return_counts=True)
    assert len(found) <= 50
    counts = np.sort(counts)[::-1] / len(words)
    assert counts[:5].sum() > 0.3
    assert counts[25:].sum() > 0.1


@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_of_images_are_labelled_with_the_last_digit_of_their_sum(sign):
    labels = np.tile(np.arange(10, dtype="int32"), 30)
    images = np.broadcast_to(labels[:, None, None], (300, 2, 3)).astype("float32")
    pairs, sums = generated.sums({"train": (images, labels)}, sign)["train"]
    assert pairs.shape == (300, 2, 6)
    np.testing.assert_array_equal(pairs[:, :, :3], images)
    other = pairs[:, 0, 3]
    assert len(np.unique(labels + 10 * other)) > 50
    np.testing.assert_array_equal((labels + sign * other) % 10, sums)


def test_a_pendulum_follows_the_pushes_that_it_was_given():
    """Weak ones add up as those of a damped spring do: what is left is what the sine adds."""
    x, y = generated.responses(6, count=3000)["train"]
    assert y.std() == pytest.approx(1.0, rel=0.05)
    pushes = x[..., 0]
    weak = np.abs(pushes).max(axis=1) < np.quantile(np.abs(pushes).max(axis=1), 0.2)
    weights, *_ = np.linalg.lstsq(pushes[weak], y[weak], rcond=None)
    left = [np.std(y[some] - pushes[some] @ weights) for some in (weak, ~weak)]
    assert left[0] < 0.15
    assert left[1] > 2.0 * left[0]


def test_words_of_a_bag_are_of_one_topic():
    x, y = generated.bags(50, 4)["train"]
    assert x.min() >= 0
    assert x.max() < 50
    together = np.mean((x == y[:, None]).any(axis=1))
    apart = np.mean((x == np.roll(y, 1)[:, None]).any(axis=1))
    assert together > 1.2 * apart


def test_items_are_counted_after_users():
    x, _ = generated.ratings(10, 5)["train"]
    assert set(x[:, 0]) == set(range(10))
    assert set(x[:, 1]) == set(range(10, 15))


def test_rare_words_of_a_bag_can_be_all_the_same():
    whole = generated.bags(50, 4)["train"]
    for words, few in zip(whole, generated.bags(50, 4, kept=10)["train"], strict=True):
        np.testing.assert_array_equal(few, np.minimum(words, 10))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
