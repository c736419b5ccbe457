"""Tests of presets on the Hugging Face Hub: `huggingface_hub` itself, with a hub of the tests."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import keras
import numpy as np
import pytest
from huggingface_hub import constants

import l2l_keras
from l2l_keras import LearnedOptimizer, presets, upload_preset
from l2l_keras.rules import CoordinatewiseLSTM, RNNprop
from tests.presets import hub_server

CARD = {"name": "mine", "description": "A test.", "licence": "MIT", "horizon": 20}
FILES = {"config.json", "weights.npz", "card.json", "README.md"}


@pytest.fixture(name="hub")
def hub_fixture(tmp_path, monkeypatch):
    """A hub in place of the real one, an account, and an empty cache."""
    with hub_server.running() as hub:
        # What the library reads from variables when it is imported.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield hub


@pytest.fixture(name="rule")
def rule_fixture():
    return CoordinatewiseLSTM(units=(3, 2), seed=1)


@pytest.fixture(name="folder")
def folder_fixture(rule, tmp_path):
    LearnedOptimizer(rule).save_to_preset(tmp_path / "mine", CARD)
    return tmp_path / "mine"


def npz(weights):
    file = io.BytesIO()
    np.savez(file, *weights)
    return file.getvalue()


def put(hub, config, weights=()):
    """Puts something that may be a preset on the hub."""
    files = {"config_json": json.dumps(config).encode(), "card_json": b"{}"}
    hub.commit("user/mine", weights_npz=npz(weights), **files)


class TestUploadAndDownload:
    def test_give_the_same_rule_and_card(self, hub, rule, folder):
        upload_preset("hf://user/mine", folder)
        assert set(hub.files("user/mine")) == FILES
        loaded, card = presets.load_preset("hf://user/mine")
        assert card == CARD
        assert loaded.get_config() == rule.get_config()
        for actual, expected in zip(loaded.get_weights(), rule.get_weights(), strict=True):
            np.testing.assert_array_equal(actual, expected)
        optimizer = LearnedOptimizer.from_preset("hf://user/mine", learning_rate=0.5)
        assert float(optimizer.learning_rate) == 0.5

    def test_groups_come_back(self, hub, rule, tmp_path):
        groups = {"bias": RNNprop((2,), seed=0), ".*": rule}
        LearnedOptimizer(groups).save_to_preset(tmp_path / "groups")
        upload_preset("hf://user/groups", str(tmp_path / "groups"))
        loaded = LearnedOptimizer.from_preset("hf://user/groups").rule
        assert {group: type(member) for group, member in loaded.items()} == {
            "bias": RNNprop,
            ".*": CoordinatewiseLSTM,
        }

    def test_the_account_is_the_own_one_by_default(self, hub, folder):
        upload_preset("hf://mine", folder)
        assert list(hub.repositories) == ["user/mine"]
        assert b'from_preset("hf://user/mine")' in hub.files("user/mine")["README.md"]

    def test_only_the_preset_s_files_are_uploaded(self, hub, folder):
        (folder / "secret.txt").write_text("Mine.")
        before = {file: file.read_bytes() for file in folder.iterdir()}
        upload_preset("hf://user/mine", folder)
        assert set(hub.files("user/mine")) == FILES
        assert before == {file: file.read_bytes() for file in folder.iterdir()}

    def test_a_new_version_is_downloaded(self, hub, folder):
        upload_preset("hf://user/mine", folder)
        assert presets.load_preset("hf://user/mine")[0].units == (3, 2)
        other = CoordinatewiseLSTM(units=(4,), seed=0)
        LearnedOptimizer(other).save_to_preset(folder, {"name": "other"})
        upload_preset("hf://user/mine", folder)
        loaded, card = presets.load_preset("hf://user/mine")
        assert loaded.units == (4,)
        assert card == {"name": "other"}

    def test_what_is_there_is_downloaded_once(self, hub, folder):
        upload_preset("hf://user/mine", folder)
        presets.load_preset("hf://user/mine")
        hub.requests.clear()
        presets.load_preset("hf://user/mine")
        assert hub.requests == [("HEAD", "/user/mine/resolve/main/config.json")]

    def test_what_is_there_needs_no_network(self, hub, folder, tmp_path):
        """In a program of its own, with the variables that users set."""
        upload_preset("hf://user/mine", folder)
        presets.load_preset("hf://user/mine")
        code = (
            "import l2l_keras; print(l2l_keras.LearnedOptimizer.from_preset('hf://user/mine'))\n"
            "try: l2l_keras.LearnedOptimizer.from_preset('hf://user/other')\n"
            "except OSError as error: print(error)"
        )
        environment = {
            **os.environ,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1]),
        }
        hub.requests.clear()
        shown = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
        optimizer, error = shown.splitlines()
        assert optimizer.startswith("<LearnedOptimizer of CoordinatewiseLSTM")
        assert error.startswith("Could not download the preset 'hf://user/other': ")
        assert not hub.requests


class TestCards:
    def test_the_card_says_how_to_load_the_preset(self, hub, folder):
        upload_preset("hf://user/mine", folder)
        card = huggingface_hub.ModelCard(hub.files("user/mine")["README.md"].decode())
        assert card.data.license == "mit"
        assert card.data.library_name == "l2l-keras"
        assert 'LearnedOptimizer.from_preset("hf://user/mine")' in card.text

    def test_an_own_one_in_the_folder_is_uploaded(self, hub, folder):
        (folder / "README.md").write_text("Mine.")
        upload_preset("hf://user/mine", folder)
        assert hub.files("user/mine")["README.md"] == b"Mine."

    def test_an_own_one_on_the_hub_is_kept(self, hub, folder):
        hub.commit("user/mine", README_md=b"Mine.")
        upload_preset("hf://user/mine", folder)
        assert hub.files("user/mine")["README.md"] == b"Mine."
        assert set(hub.files("user/mine")) == FILES

    def test_a_generated_one_is_replaced(self, hub, folder, rule):
        upload_preset("hf://user/mine", folder)
        LearnedOptimizer(rule).save_to_preset(folder, {"description": "Another one."})
        upload_preset("hf://user/mine", folder)
        assert b"Another one." in hub.files("user/mine")["README.md"]


class TestErrors:
    @pytest.mark.parametrize("handle", ["hf://a/b/c", "hf://", "hf://user/name@main"])
    def test_a_handle_of_another_form(self, hub, folder, handle):
        for use in (presets.load_preset, lambda handle: upload_preset(handle, folder)):
            with pytest.raises(ValueError, match=f"must be hf://user/name. Received: '{handle}'"):
                use(handle)

    def test_an_address_of_another_place(self, hub, folder):
        with pytest.raises(ValueError, match="`uri` must be hf://user/name. Received: uri='kaggle"):
            upload_preset("kaggle://user/mine", folder)

    def test_no_such_repository(self, hub):
        with pytest.raises(ValueError, match="Received: 'hf://user/nothing', which is not found$"):
            presets.load_preset("hf://user/nothing")

    def test_a_repository_without_a_preset(self, hub):
        hub.commit("user/mine", README_md=b"A model.")
        with pytest.raises(OSError, match=r"Could not download .*'hf://user/mine'.*config\.json"):
            presets.load_preset("hf://user/mine")

    def test_a_folder_that_is_no_preset_is_not_uploaded(self, hub, folder):
        (folder / "weights.npz").unlink()
        with pytest.raises(ValueError, match=r"which has no weights\.npz"):
            upload_preset("hf://user/mine", folder)
        assert not hub.requests

    def test_no_account(self, hub, folder, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        with pytest.raises(OSError, match="Could not upload the preset 'hf://user/mine': .*401"):
            upload_preset("hf://user/mine", folder)

    def test_no_network(self, hub, folder, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(OSError, match="Could not upload the preset"):
            upload_preset("hf://user/mine", folder)

    def test_no_library(self, monkeypatch, folder):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        message = "To {} a preset needs the package huggingface_hub: pip install huggingface_hub"
        with pytest.raises(ImportError, match=message.format("download")):
            presets.load_preset("hf://user/mine")
        with pytest.raises(ImportError, match=message.format("upload")):
            upload_preset("hf://user/mine", folder)


class Witness(keras.layers.Layer):
    """A class that a program has registered, and that nobody else should make objects of."""

    made = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        Witness.made += 1


class OwnRule(CoordinatewiseLSTM):
    """A rule that a program has registered."""


keras.saving.register_keras_serializable("hub_test")(Witness)
keras.saving.register_keras_serializable("hub_test")(OwnRule)
WITNESS = {
    "module": None,
    "class_name": "Witness",
    "config": {},
    "registered_name": "hub_test>Witness",
}


def of_rule(**arguments):
    return {
        "class_name": "CoordinatewiseLSTM",
        "config": {"units": [3, 2], **arguments},
        "registered_name": "l2l_keras>CoordinatewiseLSTM",
    }


class TestManipulatedPresets:
    """What comes from the hub may be anyone's: it is refused before it is anything."""

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (WITNESS, "UpdateRule` of this package.*Received: 'hub_test>Witness'"),
            ({"groups": {".*": WITNESS}}, "UpdateRule` of this package"),
            ({**WITNESS, "registered_name": None, "class_name": "Dense"}, "Received: None"),
            ({**WITNESS, "registered_name": ["l2l_keras>RNNprop"]}, "of this package"),
            ({"groups": {".*": "l2l_keras>RNNprop"}}, "of this package"),
            ({"groups": {}}, "of this package"),
            (of_rule(dtype=WITNESS), "neither a number nor a string nor a list"),
            (of_rule(units=[[WITNESS]]), "neither a number nor a string nor a list"),
            (of_rule(seed={"class_name": "__lambda__", "config": {}}), "neither a number"),
            (of_rule(trainable=False), "must hold the arguments of its CoordinatewiseLSTM"),
            (of_rule(units="many"), "must hold the arguments of its CoordinatewiseLSTM"),
            (of_rule(units=[0]), "must hold the arguments of its CoordinatewiseLSTM"),
            ({**of_rule(), "config": [1]}, "must hold the arguments of its CoordinatewiseLSTM"),
            ({**of_rule(), "build_config": WITNESS, "compile_config": WITNESS}, "must hold 8 arr"),
        ],
    )
    def test_a_configuration_of_anything_but_a_rule(self, hub, config, message):
        put(hub, config)
        with pytest.raises(ValueError, match=message) as error:
            presets.load_preset("hf://user/mine")
        assert "hf://user/mine" in str(error.value)
        assert Witness.made == 0

    @pytest.mark.parametrize("content", [b"[" * 10**5, b"\xff", b'{"name": '])
    def test_files_that_are_not_json(self, hub, content):
        hub.commit("user/mine", config_json=content, weights_npz=npz([]), card_json=b"{}")
        with pytest.raises(ValueError, match=r"A preset's config\.json must be JSON"):
            presets.load_preset("hf://user/mine")

    def test_pickled_weights(self, hub):
        put(hub, of_rule(), [np.array([print], dtype=object)])
        with pytest.raises(ValueError, match="allow_pickle=False"):
            presets.load_preset("hf://user/mine")

    def test_a_rule_of_another_program_is_loaded_from_a_folder_only(self, hub, tmp_path):
        presets.save_preset(OwnRule((3, 2), seed=0), tmp_path / "own", CARD)
        assert type(presets.load_preset(tmp_path / "own")[0]) is OwnRule
        upload_preset("hf://user/own", tmp_path / "own")
        with pytest.raises(ValueError, match="download the folder.*'hub_test>OwnRule'"):
            presets.load_preset("hf://user/own")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
