"""Tests of the cache of results."""

import numpy as np
import pytest

from l2l_keras.evaluation import Result, Tuning
from l2l_keras.evaluation.testbed.cache import Cache

SETTINGS = {"problem": "mine", "grid": [0.1, 0.2]}


def fail():
    pytest.fail("made again")


@pytest.fixture(name="results")
def results_fixture():
    curves = (np.ones((2, 3), "float32"), np.full((2, 21), np.inf, "float32"))
    tunings = (Tuning(0.1, False), Tuning(0.2, True))
    return tuple(Result("Adam", c, w, t) for c, w, t in zip(curves, (1, 2), tunings, strict=True))


def test_cached_results_are_those_made(tmp_path, results):
    cache = Cache(tmp_path / "new" / "folder")
    cache.get("Adam", SETTINGS, lambda: results)
    read = cache.get("other name", dict(reversed(SETTINGS.items())), fail)
    for made, cached in zip(results, read, strict=True):
        np.testing.assert_array_equal(made.curves, cached.curves)
        assert (cached.window, cached.tuning) == (made.window, made.tuning)
        assert cached.name == "other name"


def test_other_settings_have_other_results(tmp_path, results):
    cache = Cache(tmp_path)
    cache.get("Adam", SETTINGS, lambda: results)
    untuned = tuple(Result("mine", result.curves, result.window) for result in results)
    other = {**SETTINGS, "grid": [0.1]}
    assert cache.get("mine", other, lambda: untuned)[0].tuning is None
    assert [result.tuning for result in cache.get("mine", other, fail)] == [None, None]
    assert cache.get("Adam", SETTINGS, fail)[0].tuning is not None


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_file_is_made_again(tmp_path, results, damage):
    cache = Cache(tmp_path)
    cache.get("Adam", SETTINGS, lambda: results)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    made = []
    cache.get("Adam", SETTINGS, lambda: made.append(1) or results)
    assert made
    assert len(cache.get("Adam", SETTINGS, fail)) == 2


def test_a_missing_file_may_be_shipped(tmp_path, results):
    Cache(tmp_path / "shipped").get("Adam", SETTINGS, lambda: results)
    cache = Cache(tmp_path / "own", tmp_path / "shipped")
    assert len(cache.get("Adam", SETTINGS, fail)) == 2
    assert not (tmp_path / "own").exists()


@pytest.mark.parametrize("number", [0.0, 0.123456, 98765.4, 1e-6, 1e30, np.inf, np.nan])
def test_losses_are_kept_to_three_digits(tmp_path, number):
    made = (Result("Adam", np.full((1, 3), number, "float32"), 1),)
    cache = Cache(tmp_path)
    fresh = cache.get("Adam", SETTINGS, lambda: made)[0].curves
    np.testing.assert_allclose(fresh, number, rtol=5e-4)
    np.testing.assert_array_equal(cache.get("Adam", SETTINGS, fail)[0].curves, fresh)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
