"""Tests of the data of the general mixture."""

import numpy as np
import pytest

from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.general import data

MAKERS = {
    "teacher": lambda: data.teacher(4, 2, count=300),
    "random_field": lambda: data.random_field(count=300),
    "regions": lambda: data.regions(3, count=300),
    "table": lambda: data.table(8, count=300),
    "clusters": lambda: data.clusters(3, 6, count=300),
    "label_noise": lambda: data.label_noise(data.clusters(3, 6, count=300), 0.5),
    "skewed_clusters": lambda: data.skewed_clusters(3, 6, 300),
    "correlated": lambda: data.correlated(6, count=300),
    "textures": lambda: data.textures(4, 8, count=300),
    "markov_chain": lambda: data.markov_chain(9, 5, count=300),
    "text": lambda: data.text(9, 5, count=300),
    "digit_sums": lambda: data.digit_sums(
        {split: (x[:, None], y) for split, (x, y) in data.clusters(10, 6, 300).items()}
    ),
    "sines": lambda: data.sines(5, count=300),
    "pendulum": lambda: data.pendulum(5, count=300),
    "word_bags": lambda: data.word_bags(30, 3, count=300),
    "ratings": lambda: data.ratings(10, 5, count=300),
}


@pytest.mark.parametrize("name", MAKERS)
def test_splits_are_equally_large_finite_different_and_reproducible(name):
    first, again = MAKERS[name](), MAKERS[name]()
    assert list(first) == list(SPLITS)
    for split in SPLITS:
        x, y = first[split]
        assert len(x) == len(y) == 100
        assert np.isfinite(x).all() and np.isfinite(y).all()
        np.testing.assert_array_equal(x, again[split][0])
        np.testing.assert_array_equal(y, again[split][1])
    assert not np.array_equal(first["train"][0], first["validation"][0])
    assert {x.dtype.name for x, _ in first.values()} <= {"float32", "int32"}


def test_skewed_features_have_a_long_tail_and_keep_their_order():
    (before, classes), (x, labels) = (
        (np.concatenate(part) for part in zip(*generate(3, 8, 3000).values(), strict=True))
        for generate in (data.clusters, data.skewed_clusters)
    )
    np.testing.assert_array_equal(np.argsort(x, axis=0), np.argsort(before, axis=0))
    np.testing.assert_array_equal(labels, classes)
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=0), 1.0, atol=1e-5)
    skews = np.mean(x**3, axis=0)
    assert skews.max() > 1.0 and skews.min() < -0.2


def test_outputs_of_deeper_teachers_are_less_linear_and_have_variance_one():
    unexplained = []
    for depth in (1, 3):
        x, y = data.teacher(6, 4, count=9000, noise=0.0, depth=depth)["train"]
        assert y.std() == pytest.approx(1.0, rel=0.05)
        unexplained.append(np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]))
    assert 0.02 < unexplained[0] < unexplained[1] < 0.9


def test_regions_are_connected_and_of_similar_size():
    x, labels = data.regions(4)["train"]
    assert np.bincount(labels).min() > 0.05 * len(labels)
    distances = ((x[:500, None] - x) ** 2).sum(axis=-1)
    nearest = np.argsort(distances, axis=1)[:, 1]
    assert np.mean(labels[nearest] == labels[:500]) > 0.9


@pytest.mark.parametrize(("distance", "lowest", "highest"), [(4.0, 0.9, 1.0), (1.0, 0.4, 0.8)])
def test_distant_clusters_are_linearly_separable(distance, lowest, highest):
    x, labels = data.clusters(3, 12, 3000, distance)["train"]
    x = np.column_stack([x, np.ones(len(x))])
    fitted = x @ np.linalg.lstsq(x, np.eye(3)[labels], rcond=None)[0]
    assert lowest < np.mean(fitted.argmax(axis=1) == labels) <= highest


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_label_noise_replaces_a_part_of_the_labels(part):
    clean = data.clusters(4, 6, 9000)
    for split, (x, noisy) in data.label_noise(clean, part).items():
        assert x is clean[split][0]
        assert np.mean(noisy != clean[split][1]) == pytest.approx(0.75 * part, abs=0.03)
        assert noisy.dtype == clean[split][1].dtype
        assert set(np.unique(noisy)) == set(range(4))


@pytest.mark.parametrize("condition", [1.0, 1000.0])
def test_correlated_features_have_the_given_condition_number(condition):
    x, _ = data.correlated(8, condition, count=30000)["train"]
    values = np.linalg.eigvalsh(np.cov(x.T))
    assert values[-1] / values[0] == pytest.approx(condition, rel=0.15)


def test_the_class_of_a_texture_is_the_direction_of_its_waves():
    x, labels = data.textures(4, 24, count=600)["train"]
    assert x.shape == (200, 24, 24, 3)
    assert x.min() >= 0.0 and x.max() <= 1.0
    # Waves change most along their direction, the angle of the structure tensor.
    down, right = np.gradient(x.mean(axis=-1), axis=(1, 2))
    double = np.arctan2(2.0 * np.mean(down * right, (1, 2)), np.mean(right**2 - down**2, (1, 2)))
    directions = np.round(double / 2.0 / (np.pi / 4)).astype(int) % 4
    assert np.mean(directions == labels) > 0.8


def test_tokens_depend_on_the_token_before():
    x, y = data.markov_chain(12, 8)["train"]
    assert x.shape == y.shape == (2000, 8)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    # The most frequent successor of a token is far more frequent than chance.
    counts = np.zeros((12, 12))
    np.add.at(counts, (x.ravel(), y.ravel()), 1)
    assert counts.max(axis=1).sum() / counts.sum() > 3 / 12
    assert x.min() >= 0 and x.max() < 12


def test_a_text_has_few_frequent_and_many_rare_words():
    x, y = data.text(10, 30, count=9000, words=50)["train"]
    assert x.shape == y.shape == (3000, 30)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    assert x.min() == 0 and x.max() < 10
    # The last word of a window may be cut off.
    words = [word for window in x for word in "".join(map(str, window)).split("0")[:-1]]
    assert {len(word) for word in words} == set(range(2, 8))
    found, counts = np.unique(words, return_counts=True)
    assert len(found) <= 50
    counts = np.sort(counts)[::-1] / len(words)
    assert counts[:5].sum() > 0.3
    assert counts[25:].sum() > 0.1


def test_squares_of_pixels_are_averaged():
    images = np.arange(48, dtype="uint8").reshape(2, 4, 6)
    # The mean of 0, 1, 6 and 7 is 3.5, which is rounded to the even number.
    np.testing.assert_array_equal(data.halved(images)[0], [[4, 6, 8], [16, 18, 20]])


@pytest.mark.parametrize("sign", [1, -1])
def test_pairs_of_digits_are_labeled_with_the_last_digit_of_their_sum(sign):
    labels = np.tile(np.arange(10, dtype="int32"), 30)
    images = np.broadcast_to(labels[:, None, None], (300, 2, 3)).astype("float32")
    pairs, sums = data.digit_sums({"train": (images, labels)}, sign)["train"]
    assert pairs.shape == (300, 2, 6)
    np.testing.assert_array_equal(pairs[:, :, :3], images)
    other = pairs[:, 0, 3]
    assert len(np.unique(labels + 10 * other)) > 50
    np.testing.assert_array_equal((labels + sign * other) % 10, sums)


def test_a_pendulum_is_almost_linear_for_weak_forces_only():
    x, y = data.pendulum(6, count=3000)["train"]
    assert y.std() == pytest.approx(1.0, rel=0.05)
    forces = x[..., 0]
    weak = np.abs(forces).max(axis=1) < np.quantile(np.abs(forces).max(axis=1), 0.2)
    weights, *_ = np.linalg.lstsq(forces[weak], y[weak], rcond=None)
    residuals = [np.std(y[some] - forces[some] @ weights) for some in (weak, ~weak)]
    assert residuals[0] < 0.15
    assert residuals[1] > 2.0 * residuals[0]


def test_values_are_those_of_the_domain():
    x, _ = data.ratings(10, 5)["train"]
    assert set(x[:, 0]) == set(range(10))
    assert set(x[:, 1]) == set(range(10, 15))
    labels = data.table()["train"][1]
    assert set(np.unique(labels)) == {0.0, 1.0}
    assert 0.3 < labels.mean() < 0.7


def test_words_of_a_bag_share_a_topic():
    x, y = data.word_bags(50, 4)["train"]
    assert x.min() >= 0 and x.max() < 50
    same_bag = np.mean((x == y[:, None]).any(axis=1))
    other_bag = np.mean((x == np.roll(y, 1)[:, None]).any(axis=1))
    assert same_bag > 1.2 * other_bag
    # Rare words can be merged.
    for words, merged in zip((x, y), data.word_bags(50, 4, kept=10)["train"], strict=True):
        np.testing.assert_array_equal(merged, np.minimum(words, 10))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
