"""Tests of reading and cropping pictures."""

import keras
import numpy as np
import pytest

from l2l_keras.tasks.base import SPLITS
from l2l_keras.tasks.paper import pictures

SHADES = (100, 200)


@pytest.fixture(name="folder")
def folder_fixture(tmp_path):
    """Pictures of one color: red ones to train, green to validate, blue to test."""
    for channel, split in enumerate(("train", "val", "test")):
        (tmp_path / split).mkdir()
        for shade in SHADES:
            pixels = np.zeros((30, 40, 3))
            pixels[..., channel] = shade
            keras.utils.save_img(tmp_path / split / f"{shade}.png", pixels, scale=False)
    return tmp_path


def test_pictures_of_a_folder_stay_in_their_split(folder):
    (folder / "train" / "readme.txt").write_text("Not a picture.")
    for channel, (split, loaders) in enumerate(pictures.in_folder(str(folder)).items()):
        assert split == SPLITS[channel]
        colors = [tuple(np.unique(load().reshape(-1, 3), axis=0)[0]) for load in loaders]
        assert colors == [tuple(shade * (c == channel) for c in range(3)) for shade in SHADES]


@pytest.mark.parametrize(("name", "expected"), [("train", "train"), ("val", "validation")])
def test_a_folder_without_pictures_is_refused(folder, name, expected):
    for path in (folder / name).iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"Expected pictures .*{expected}") as error:
        pictures.in_folder(str(folder))
    assert "\n" not in str(error.value)


def test_embedded_pictures_are_thirds_of_a_photograph():
    thirds = [load() for (load,) in pictures.embedded().values()]
    np.testing.assert_array_equal(np.concatenate(thirds, axis=1), pictures.photograph("china.jpg"))
    assert [third.shape for third in thirds] == [(427, 214, 3), (427, 213, 3), (427, 213, 3)]


def test_random_crops_are_squares_flipped_or_not():
    # Brightness grows to the right and is constant in columns, so that it shows where a crop is
    # from, and whether it is distorted.
    ramp = (np.zeros((100, 200, 3)) + np.arange(200)[:, np.newaxis]).astype("uint8")
    generator = np.random.default_rng(0)
    rows = [pictures.random_crop(ramp, 20, generator)[10, 2:-2, 0] for _ in range(30)]
    slopes = np.array([np.polyfit(np.arange(16), row, 1)[0] for row in rows])
    assert {slope > 0 for slope in slopes} == {True, False}
    # Sides from 75 to 100 pixels, resized to 20.
    assert np.all((np.abs(slopes) > 3.7) & (np.abs(slopes) < 5.05))
    starts = [row.min() for row in rows]
    assert min(starts) < 50 < 90 < max(starts)


def test_the_center_crop_is_the_largest_central_square():
    picture = np.full((32, 64, 3), 128, "uint8")
    picture[:, :16], picture[:, 48:] = 0, 255
    np.testing.assert_array_equal(pictures.center_crop(picture, 16), np.full((16, 16, 3), 128))


def test_files_that_are_no_pictures_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No picture at .*missing.jpg"):
        pictures.read_image(tmp_path / "missing.jpg")
    path = tmp_path / "other.jpg"
    path.write_text("Not a picture.")
    with pytest.raises(ValueError, match="Expected a JPEG, PNG or BMP picture. Received: "):
        pictures.read_image(path)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
