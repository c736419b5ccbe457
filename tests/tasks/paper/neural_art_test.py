"""Tests of the paper's pictures in the style of a painting."""

import itertools
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras import meta, rules, tasks
from l2l_keras.tasks import NeuralArt
from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.paper.pictures import photograph

FOLDER = os.environ.get("L2L_KERAS_NEURAL_ART_DIR")
# Shallow layers, for fast tests.
LAYERS = {"content_layer": "block2_conv1", "style_layers": ("block1_conv1", "block2_conv1")}


def make(**options):
    return NeuralArt(**{"weights": None, "size": 16, **LAYERS, **options})


def noise(seed, height=40, width=50):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3)).astype("uint8")


def to_parameters(picture):
    return ((picture / 255.0 - 0.5) / 4.0).ravel().astype("float32")


@pytest.fixture(name="task", scope="module")
def task_fixture():
    return make()


class TestSampling:
    def test_seeds_and_splits_determine_noise_and_content(self, task):
        draws = [*itertools.product(SPLITS, range(3))]
        optimizees, again = ([t.sample(*draw) for draw in draws] for t in (task, make()))
        tf.nest.map_structure(np.testing.assert_array_equal, optimizees, again)
        assert len({parameters.numpy().tobytes() for parameters, _ in optimizees}) == 9
        assert len({features.numpy().tobytes() for _, (features, _) in optimizees}) == 9

    @pytest.mark.parametrize("size", [32, 96])
    def test_the_initial_noise_is_nearly_gray_and_its_loss_about_one(self, size):
        task = make(size=size)
        parameters, state = task.sample("train", 0)
        pixels = task.to_image(parameters) / 255.0
        assert pixels.mean() == pytest.approx(0.5, abs=0.005)
        assert pixels.std() == pytest.approx(0.05, abs=0.005)
        assert float(task.loss(parameters, state, ())[0][0]) == pytest.approx(1.08, rel=0.05)

    def test_contents_are_pictures_of_the_split(self, tmp_path):
        for shade, name in enumerate(("train", "val", "test")):
            (tmp_path / name).mkdir()
            keras.utils.save_img(tmp_path / name / "a.png", np.full((9, 9, 3), shade), scale=False)
        task = make(content_dir=str(tmp_path))
        for shade, split in enumerate(SPLITS):
            np.testing.assert_array_equal(task.content(split, 0), np.full((16, 16, 3), shade))

    def test_a_picture_of_one_s_own_is_the_content(self, task):
        picture = noise(4, 16, 16)
        (first, state), (second, other) = (task.optimizee(picture, seed) for seed in (0, 1))
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(state[0], other[0])
        terms = task.terms(tf.constant(to_parameters(picture)), state)
        assert float(terms.content) == pytest.approx(0, abs=1e-6)
        for wrong in (picture[0], picture.astype("float32")):
            with pytest.raises(ValueError, match="uint8 of shape .* Received: "):
                task.optimizee(wrong, seed=0)


class TestLoss:
    def test_it_is_the_weighted_sum_of_its_terms(self):
        task = make(content_weight=0.5, style_weight=2.0, variation_weight=3.0)
        parameters, state = task.sample("train", 0)
        losses, after = task.loss(parameters, state, task.batch("train", tf.constant([0, 0])))
        content, style, variation = (float(term) for term in task.terms(parameters, state))
        np.testing.assert_allclose(losses, [0.5 * content + 2 * style + 3 * variation], rtol=1e-5)
        assert after is state

    def test_terms_agree_with_numpy(self, task):
        parameters, state = task.sample("train", 0)
        terms = task.terms(parameters, state)
        pixels = 0.5 + 4.0 * parameters.numpy().astype("float64").reshape(16, 16, 3)
        variation = np.mean(np.diff(pixels, axis=0) ** 2) + np.mean(np.diff(pixels, axis=1) ** 2)
        assert float(terms.variation) == pytest.approx(variation, rel=1e-5)

        center = photograph("flower.jpg")[:, 106 : 106 + 427]
        style = np.round(tf.image.resize(center, (16, 16), antialias=True).numpy())
        np.testing.assert_array_equal(task.style_image, style)
        content = numpy_vgg(task.content("train", 0) / 255.0)[1]
        painted, styles = numpy_vgg(pixels), numpy_vgg(style / 255.0)
        expected = np.sum((painted[1] - content) ** 2) / np.sum(content**2)
        assert float(terms.content) == pytest.approx(expected, rel=1e-4)
        grams = [(gram(a), gram(b)) for a, b in zip(painted, styles, strict=True)]
        expected = np.mean([np.sum((a - b) ** 2) / np.sum(b**2) for a, b in grams])
        assert float(terms.style) == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("preprocessing", ["caffe", "torch"])
    def test_gradients_agree_with_finite_differences(self, preprocessing):
        task = make(preprocessing=preprocessing)
        parameters, state = task.sample("train", 0)
        _, gradient, _ = task.loss_and_gradient(parameters, state, ())
        direction = np.random.default_rng(0).normal(size=task.size)
        for way in (direction / np.linalg.norm(direction), gradient / tf.norm(gradient)):
            step = 1e-3 * tf.cast(way, "float32")
            ahead, behind = (task.loss(parameters + s, state, ())[0] for s in (step, -step))
            slope = float((ahead - behind)[0]) / 2e-3
            assert slope == pytest.approx(float(tf.reduce_sum(gradient * way)), rel=0.03, abs=1e-3)


def numpy_vgg(pixels):
    """Features of `LAYERS` with the task's random weights, in float64."""
    generator = np.random.default_rng(0)
    kernels = [
        generator.normal(scale=np.sqrt(2 / (9 * inputs)), size=(3, 3, inputs, outputs))
        for inputs, outputs in [(3, 64), (64, 64), (64, 128)]
    ]

    def convolve(image, kernel):
        height, width, _ = image.shape
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        parts = [
            padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        ]
        return np.maximum(np.sum(parts, axis=0), 0)

    # Caffe's preprocessing: blue, green, red, minus ImageNet's means.
    image = 255.0 * pixels[..., ::-1] - np.array([103.939, 116.779, 123.68])
    first = convolve(image, kernels[0])
    second = convolve(first, kernels[1])
    height, width, depth = second.shape
    pooled = second.reshape(height // 2, 2, width // 2, 2, depth).mean(axis=(1, 3))
    return [first, convolve(pooled, kernels[2])]


def gram(features):
    rows = features.reshape(-1, features.shape[-1])
    return rows.T @ rows / len(rows)


def test_pictures_and_parameters_are_converted_and_colors_clipped(task):
    picture = noise(0, 16, 16)
    np.testing.assert_array_equal(task.to_image(to_parameters(picture)), picture)
    signs = np.where(np.arange(task.size) % 2, 1.0, -1.0)
    assert set(task.to_image(tf.constant(signs, "float32")).ravel()) == {0, 255}


@pytest.mark.parametrize("second_derivatives", [False, True])
def test_a_rule_can_be_meta_trained_on_it(second_derivatives):
    task = make(size=8, content_layer="block1_conv1", style_layers=("block1_conv1",))
    rule = rules.MomentumLSTM(units=(4,), rate=0.0, adaptive_rate=0.002, seed=0)
    estimator = meta.BackPropagation(second_derivatives)
    model = meta.MetaModel(rule, task, 6, estimator, meta.Windows(unroll=3))
    model.compile(keras.optimizers.Adam(0.03))
    before = model.evaluate(tf.data.Dataset.range(2), verbose=0, return_dict=True)
    history = model.fit(windows=6, validation_episodes=2, verbose=0).history
    assert history["skipped"] == [0]
    assert history["val_loss"][0] < before["loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be a positive integer. Received: size=0"),
        ({"size": 16.0}, "`size` must be a positive integer. Received: size=16.0"),
        ({"size": 1}, "need a larger `size`. Received: 1"),
        ({"preprocessing": "tf"}, "`preprocessing` must be one of .* Received: preprocessing='tf'"),
        ({"content_layer": "block9_conv1"}, "must be among block1_conv1, .*Received: block9_conv1"),
        ({"style_layers": ()}, r"`style_layers` must be a list .* Received: style_layers=\(\)"),
        (
            {"style_layers": "block1_conv1"},
            "must be a list .* Received: style_layers='block1_conv1'",
        ),
        ({"style_weight": -1.0}, "must not be negative.*Received: .*style=-1"),
        (
            {"content_weight": 0, "style_weight": 0, "variation_weight": 0},
            "nor all zero.*Received: ",
        ),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


@pytest.mark.skipif(
    FOLDER is None, reason="L2L_KERAS_NEURAL_ART_DIR does not name a folder with pictures and VGG16"
)
def test_adam_paints_with_the_real_network():
    """With `content`, `style/starry_night.jpg` and torchvision's `vgg16_notop.weights.h5`."""
    folder = Path(FOLDER)
    task = tasks.get(
        "neural_art",
        content_dir=str(folder / "content"),
        style=str(folder / "style" / "starry_night.jpg"),
        weights=str(folder / "vgg16_notop.weights.h5"),
        preprocessing="torch",
        size=32,
    )
    parameters, state = task.sample("validation", 0)
    step = tf.function(lambda p: task.loss_and_gradient(p, state, ())[:2], autograph=False)
    painting = keras.Variable(parameters)
    optimizer = keras.optimizers.Adam(0.01)
    losses = []
    for _ in range(50):
        loss, gradient = step(painting.value)
        losses.append(float(loss[0]))
        optimizer.apply([gradient], [painting])
    assert losses[0] == pytest.approx(0.9, abs=0.3)
    assert losses[-1] < 0.4 * losses[0]
    # Starry Night is blue.
    red, _, blue = task.to_image(painting.value).mean(axis=(0, 1))
    assert blue > red + 10


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
