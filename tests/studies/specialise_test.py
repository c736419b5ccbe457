"""Tests of meta-training within a time limit."""

import json
import re

import numpy as np
import pytest

from l2l_keras import presets
from l2l_keras.rules import TensorwiseLSTM
from l2l_keras.studies.specialise import specialise
from tests.studies.outcomes import line

STEPS = 6
TWO_EPOCHS = 1e-6
"""Minutes in which there is time for the least number of epochs."""


@pytest.fixture(name="start", scope="module")
def start_fixture(tmp_path_factory):
    path = tmp_path_factory.mktemp("presets") / "start"
    presets.save_preset(TensorwiseLSTM(4, seed=0), path, {"name": "start"})
    return str(path)


@pytest.fixture(name="finished", scope="module")
def finished_fixture(start, tmp_path_factory):
    """The folder of a finished run of one epoch, and what it returned."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(start, folder)


def run(start, folder, minutes=TWO_EPOCHS, record=None, progress=lambda line: None):
    return specialise(line(), STEPS, start, minutes, folder, record or {}, progress)


def weights(path):
    return presets.load_preset(path)[0].get_weights()


def interrupt(line):
    """Progress that ends a run after an epoch."""
    if re.search(r"epoch +1/", line):
        raise KeyboardInterrupt


def test_a_preset_and_its_cost_are_written(start, finished):
    _, found = finished
    rule, card = presets.load_preset(found.preset)
    assert card["trained_from"] == {"name": "start"} and card["horizon"] == STEPS
    assert card["schedule"] == "cosine"
    assert found.seconds > 0
    # 4 episodes and 8 of validation an epoch, of eight inner loops and one.
    assert found.steps == 4 * STEPS * 8 + 8 * STEPS
    pairs = zip(weights(start), rule.get_weights(), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)


def test_what_is_finished_is_not_repeated(start, finished):
    folder, first = finished
    said = []
    assert run(start, folder, progress=said.append) == first
    assert said == []


def test_an_interrupted_run_ends_with_the_same_weights(start, finished, tmp_path):
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    settings = json.loads((finished[0] / "settings.json").read_text())
    for folder in (whole, interrupted):
        folder.mkdir()
        (folder / "settings.json").write_text(json.dumps({**settings, "epochs": 2}))
    run(start, whole)
    with pytest.raises(KeyboardInterrupt):
        run(start, interrupted, progress=interrupt)
    run(start, interrupted)
    for a, b in zip(weights(whole / "preset"), weights(interrupted / "preset"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_settings_are_refused(start, finished):
    for options in ({"minutes": 2.0}, {"record": {"task": "another"}}):
        with pytest.raises(ValueError, match="specialised with other settings.*remove it"):
            run(start, finished[0], **options)


def test_the_number_of_epochs_follows_the_time(start, finished, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(start, tmp_path, minutes=60.0, progress=interrupt)
    epochs = [
        json.loads((folder / "settings.json").read_text())["epochs"]
        for folder in (finished[0], tmp_path)
    ]
    assert epochs[0] == 1 and epochs[1] > 100


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
