"""Tests of the paper's pictures in the style of a painting."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras import meta, rules, tasks
from l2l_keras.tasks import NeuralArt
from l2l_keras.tasks.paper.neural_art import read_image

SPLITS = ("train", "validation", "test")
FOLDER = os.environ.get("L2L_KERAS_NEURAL_ART_DIR")
# Shallow ones, so that tests are quick.
LAYERS = {"content_layer": "block2_conv1", "style_layers": ("block1_conv1", "block2_conv1")}


def make(**options):
    return NeuralArt(**{"weights": None, "size": 16, **LAYERS, **options})


def write_picture(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    keras.utils.save_img(path, pixels, scale=False)
    return str(path)


def noise(seed, height=40, width=50):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3)).astype("uint8")


@pytest.fixture(name="task", scope="module")
def task_fixture():
    return make()


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    """Pictures of one colour: red ones to train, green to validate, blue to test."""
    for channel, split in enumerate(("train", "val", "test")):
        for shade in (100, 200):
            pixels = np.zeros((30, 40, 3))
            pixels[..., channel] = shade
            write_picture(tmp_path / split / f"{shade}.png", pixels)
    return tmp_path


class TestSampling:
    def test_the_same_seed_gives_the_same_optimizee(self, task):
        for split in SPLITS:
            first, second = (tf.nest.flatten(task.sample(split, 3)) for _ in range(2))
            for a, b in zip(first, second, strict=True):
                np.testing.assert_array_equal(a, b)

    def test_seeds_and_splits_differ_in_noise_and_content(self, task):
        optimizees = [task.sample(split, seed) for split in SPLITS for seed in range(3)]
        assert len({parameters.numpy().tobytes() for parameters, _ in optimizees}) == 9
        assert len({features.numpy().tobytes() for _, (features, _) in optimizees}) == 9

    def test_two_tasks_draw_alike(self, task):
        first, second = (tf.nest.flatten(t.sample("train", 0)) for t in (task, make()))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_the_noise_to_start_from_is_nearly_grey(self):
        parameters, _ = make(size=64).sample("train", 0)
        pixels = make(size=64).to_image(parameters) / 255.0
        assert pixels.mean() == pytest.approx(0.5, abs=0.005)
        assert pixels.std() == pytest.approx(0.05, abs=0.005)

    def test_pictures_of_a_folder_stay_in_their_split(self, folder):
        task = make(content_dir=str(folder))
        for channel, split in enumerate(SPLITS):
            colours = {tuple(task.content(split, seed).max(axis=(0, 1))) for seed in range(20)}
            expected = {
                tuple(shade if c == channel else 0 for c in range(3)) for shade in (100, 200)
            }
            assert colours == expected

    def test_without_a_folder_splits_are_thirds_of_a_photograph(self, monkeypatch):
        thirds = np.zeros((30, 90, 3), "uint8")
        for k in range(3):
            thirds[:, 30 * k : 30 * (k + 1), k] = 200
        monkeypatch.setattr("sklearn.datasets.load_sample_image", lambda name: thirds)
        task = make()
        for channel, split in enumerate(SPLITS):
            for seed in range(5):
                colour = task.content(split, seed)[..., channel]
                assert np.all(colour == 200)

    def test_crops_are_squares_of_a_picture_mirrored_or_not(self, tmp_path):
        # Brightness grows to the right, so that a crop tells where it is from, and is the same in
        # every row, so that what was squeezed would show.
        pixels = np.zeros((100, 200, 3)) + np.arange(200)[:, np.newaxis]
        for split in SPLITS:
            write_picture(tmp_path / split / "ramp.png", pixels)
        task = make(content_dir=str(tmp_path), size=20)
        slopes, starts = [], []
        for seed in range(30):
            row = task.content("train", seed)[10, 2:-2, 0].astype(float)
            slopes.append(np.polyfit(np.arange(16), row, 1)[0])
            starts.append(row.min())
        # Sides from 75 to 100 pixels, resized to 20.
        assert {slope > 0 for slope in slopes} == {True, False}
        assert all(3.7 < abs(slope) < 5.05 for slope in slopes)
        assert min(starts) < 50 < 90 < max(starts)


class TestOwnPicture:
    def test_one_of_the_right_size_is_the_content(self, task):
        picture = noise(4, 16, 16)
        _, state = task.optimizee(picture, seed=0)
        terms = task.terms(task.to_parameters(picture), state)
        assert float(terms.content) == pytest.approx(0, abs=1e-6)

    def test_a_larger_one_is_cut_and_resized(self, task):
        # Grey in the middle, black and white left and right of it.
        picture = np.full((32, 64, 3), 128, "uint8")
        picture[:, :16], picture[:, 48:] = 0, 255
        _, (features, _) = task.optimizee(picture, seed=0)
        _, (expected, _) = task.optimizee(np.full((16, 16, 3), 128, "uint8"), seed=0)
        np.testing.assert_allclose(features, expected, rtol=1e-5)

    def test_seeds_differ_in_noise_only(self, task):
        (first, state), (second, other) = (task.optimizee(noise(4), seed) for seed in (0, 1))
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(state[0], other[0])

    @pytest.mark.parametrize(
        "picture",
        [np.zeros((16, 16), "uint8"), np.zeros((16, 16, 3)), np.zeros((16, 16, 4), "uint8")],
    )
    def test_others_are_refused(self, task, picture):
        with pytest.raises(ValueError, match="uint8 of shape .* Received: "):
            task.optimizee(picture, seed=0)


class TestLoss:
    def test_it_is_the_weighted_sum_of_its_terms(self):
        task = make(content_weight=0.5, style_weight=2.0, variation_weight=3.0)
        parameters, state = task.sample("train", 0)
        losses, after = task.loss(parameters, state, task.batch("train", tf.constant([0, 0])))
        content, style, variation = (float(term) for term in task.terms(parameters, state))
        np.testing.assert_allclose(losses, [0.5 * content + 2 * style + 3 * variation], rtol=1e-5)
        assert after is state

    def test_content_is_zero_at_the_content_picture(self, task):
        _, state = task.sample("validation", 1)
        terms = task.terms(task.to_parameters(task.content("validation", 1)), state)
        assert float(terms.content) == pytest.approx(0, abs=1e-6)
        assert float(terms.style) > 0.01

    def test_style_is_zero_at_the_style_picture(self, tmp_path):
        style = noise(0, 16, 16)
        task = make(style=write_picture(tmp_path / "style.png", style))
        _, state = task.sample("train", 0)
        terms = task.terms(task.to_parameters(style), state)
        assert float(terms.style) == pytest.approx(0, abs=1e-6)
        assert float(terms.content) > 0.01

    def test_style_does_not_see_where_things_are(self, tmp_path):
        # The features of 3 by 3 pixels go along where a seamless picture is rolled.
        pixels = np.tile(noise(1, 16, 16), (4, 4, 1))
        task = make(
            size=64,
            style=write_picture(tmp_path / "style.png", pixels),
            content_layer="block1_conv1",
            style_layers=("block1_conv1",),
        )
        _, state = task.sample("train", 0)
        rolled = task.terms(task.to_parameters(np.roll(pixels, 5, axis=(0, 1))), state)
        assert float(rolled.style) < 1e-3

    def test_terms_agree_with_an_independent_computation(self, task):
        parameters, (features, _) = task.sample("train", 0)
        terms = task.terms(parameters, (features, task.sample("train", 0)[1][1]))
        pixels = 0.5 + 4.0 * parameters.numpy().astype("float64").reshape(16, 16, 3)
        variation = np.mean(np.diff(pixels, axis=0) ** 2) + np.mean(np.diff(pixels, axis=1) ** 2)
        assert float(terms.variation) == pytest.approx(variation, rel=1e-5)

        vgg = numpy_vgg(2)
        from sklearn.datasets import load_sample_image

        photograph = load_sample_image("flower.jpg")[:, 106 : 106 + 427]
        style = np.round(tf.image.resize(photograph, (16, 16), antialias=True).numpy())
        np.testing.assert_array_equal(task.style_image, style)
        content = vgg(task.content("train", 0) / 255.0)[1]
        painted, styles = vgg(pixels), vgg(style / 255.0)
        expected = np.sum((painted[1] - content) ** 2) / np.sum(content**2)
        assert float(terms.content) == pytest.approx(expected, rel=1e-4)
        grams = [(gram(a), gram(b)) for a, b in zip(painted, styles, strict=True)]
        expected = np.mean([np.sum((a - b) ** 2) / np.sum(b**2) for a, b in grams])
        assert float(terms.style) == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("preprocessing", ["caffe", "torch"])
    def test_gradient_agrees_with_finite_differences(self, preprocessing):
        task = make(preprocessing=preprocessing)
        parameters, state = task.sample("train", 0)
        _, gradient, _ = task.loss_and_gradient(parameters, state, ())
        direction = np.random.default_rng(0).normal(size=task.size)
        for way in (direction / np.linalg.norm(direction), gradient / tf.norm(gradient)):
            step = 1e-3 * tf.cast(way, "float32")
            ahead, behind = (task.loss(parameters + s, state, ())[0] for s in (step, -step))
            slope = float((ahead - behind)[0]) / 2e-3
            assert slope == pytest.approx(float(tf.reduce_sum(gradient * way)), rel=0.03, abs=1e-3)

    def test_it_is_about_one_at_the_start_for_any_size(self):
        losses = []
        for size in (32, 64, 128):
            task = make(size=size)
            losses.append(float(task.loss(*task.sample("train", 0), ())[0][0]))
        assert all(0.3 < loss < 3 for loss in losses)
        assert max(losses) < 1.25 * min(losses)


def numpy_vgg(blocks):
    """The first convolutions of VGG16's blocks with the task's random weights, in float64."""
    generator = np.random.default_rng(0)
    channels = [(3, 64), (64, 64), (64, 128)]
    kernels = [
        generator.normal(scale=np.sqrt(2 / (9 * given)), size=(3, 3, given, made))
        for given, made in channels
    ]

    def convolve(image, kernel):
        height, width, _ = image.shape
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        parts = [
            padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        ]
        return np.maximum(np.sum(parts, axis=0), 0)

    def features(pixels):
        # Blue, green, red, minus ImageNet's means, as Caffe's models have it.
        image = 255.0 * pixels[..., ::-1] - np.array([103.939, 116.779, 123.68])
        first = convolve(image, kernels[0])
        second = convolve(first, kernels[1])
        height, width, depth = second.shape
        pooled = second.reshape(height // 2, 2, width // 2, 2, depth).mean(axis=(1, 3))
        return [first, convolve(pooled, kernels[2])][:blocks]

    return features


def gram(features):
    rows = features.reshape(-1, features.shape[-1])
    return rows.T @ rows / len(rows)


def test_a_picture_goes_to_parameters_and_back(task):
    picture = noise(0, 16, 16)
    np.testing.assert_array_equal(task.to_image(task.to_parameters(picture)), picture)


def test_what_cannot_be_shown_is_cut_off(task):
    signs = np.where(np.arange(task.size) % 2, 1.0, -1.0)
    assert set(task.to_image(tf.constant(signs, "float32")).ravel()) == {0, 255}


def test_only_what_the_layers_need_is_built():
    shallow, deep = make(), make(style_layers=("block4_conv1",))
    assert shallow._network.count_params() == 64 * 28 + 64 * 577 + 128 * 577
    assert deep._network.count_params() > 10 * shallow._network.count_params()


@pytest.mark.parametrize("second_derivatives", [False, True])
def test_a_rule_can_be_meta_trained_on_it(second_derivatives):
    task = make()
    rule = rules.MomentumLSTM(units=(4,), rate=0.0, adaptive_rate=0.002, seed=0)
    meta_model = meta.MetaModel(
        rule, task, horizon=10, unroll=5, second_derivatives=second_derivatives
    )
    meta_model.compile(keras.optimizers.Adam(0.03))
    before = meta_model.evaluate(tf.data.Dataset.range(2), verbose=0, return_dict=True)
    history = meta_model.fit(windows=8, validation_episodes=2, verbose=0).history
    assert history["skipped"] == [0]
    assert history["val_loss"][0] < before["loss"]


def test_options_come_from_the_command_line(folder):
    from l2l_keras.scripts import _console

    options = ["weights=None", "size=16", f"content_dir={folder}", "style_layers=('block1_conv1',)"]
    task = _console.get_task("neural_art", options=[*options, "content_layer=block1_conv1"])
    assert isinstance(task, NeuralArt)
    assert (task.name, task.size, task.functions) == ("neural_art", 16 * 16 * 3, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "`size` must be a positive integer. Received: 0"),
        ({"size": 16.0}, "`size` must be a positive integer. Received: 16.0"),
        ({"size": 1}, "need a larger `size`. Received: 1"),
        ({"preprocessing": "tf"}, "`preprocessing` must be one of .* Received: 'tf'"),
        ({"content_layer": "block9_conv1"}, "must be among block1_conv1, .*Received: block9_conv1"),
        ({"style_layers": ()}, r"`style_layers` must be a sequence .* Received: \(\)"),
        ({"style_layers": "block1_conv1"}, "`style_layers` must be .* Received: 'block1_conv1'"),
        ({"style_weight": -1.0}, "must not be negative.*Received: .*style=-1"),
        (
            {"content_weight": 0, "style_weight": 0, "variation_weight": 0},
            "nor all zero.*Received: ",
        ),
    ],
)
def test_what_is_not_as_described_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


class TestFiles:
    def test_a_missing_folder_is_said(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="Expected pictures .*train") as error:
            make(content_dir=str(tmp_path / "none"))
        assert "\n" not in str(error.value)

    def test_a_missing_split_is_said(self, folder):
        for path in (folder / "val").iterdir():
            path.unlink()
        with pytest.raises(FileNotFoundError, match="Expected pictures .*validation"):
            make(content_dir=str(folder))

    def test_other_files_are_left_out(self, folder):
        (folder / "train" / "readme.txt").write_text("No picture.")
        task = make(content_dir=str(folder))
        for seed in range(10):
            task.content("train", seed)

    def test_missing_pictures_and_weights_are_said(self, tmp_path):
        missing = str(tmp_path / "missing.jpg")
        with pytest.raises(FileNotFoundError, match="No picture at .*missing.jpg"):
            make(style=missing)
        with pytest.raises(FileNotFoundError, match="No weights of VGG16 at .*missing.jpg"):
            make(weights=missing)

    def test_files_that_are_something_else_are_said(self, tmp_path):
        path = tmp_path / "other.weights.h5"
        path.write_text("Neither a picture nor weights.")
        with pytest.raises(ValueError, match="Expected a JPEG, PNG or BMP picture. Received: "):
            read_image(str(path))
        with pytest.raises(ValueError, match="of VGG16 could not be read: ") as error:
            make(weights=str(path))
        assert "\n" not in str(error.value)

    def test_without_a_network_the_weights_are_said_to_be_missing(self, monkeypatch):
        def fail(**_):
            raise Exception("URL fetch failure on https://...\nand more")

        monkeypatch.setattr(keras.applications, "VGG16", fail)
        with pytest.raises(FileNotFoundError, match="'imagenet' of VGG16 could not be read: URL"):
            make(weights="imagenet")


@pytest.mark.skipif(
    FOLDER is None, reason="L2L_KERAS_NEURAL_ART_DIR does not name a folder with pictures and VGG16"
)
def test_the_real_network_paints():
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
