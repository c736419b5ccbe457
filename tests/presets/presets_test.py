"""Tests of presets: what is saved is loaded, and what is damaged is refused."""

import importlib.resources
import json
import os

import keras
import numpy as np
import pytest

from l2l_keras import LearnedOptimizer, parameter_groups, presets
from l2l_keras.rules import NTMBFGS, CoordinatewiseLSTM, RNNprop

CARD = {
    "name": "mine",
    "description": "A test.",
    "use_for": "tests",
    "cost": "3 to 5",
    "fails_on": {"all else": "diverges"},
    "command": "none",
    "results": {"loss": 0.5},
}
REQUIRED = ("name", "description", "use_for", "cost", "fails_on", "command")


@pytest.fixture(name="rule")
def rule_fixture():
    rule = CoordinatewiseLSTM(units=(3, 2), output_scale=0.2, seed=0)
    random = np.random.default_rng(1)  # Not what the seed in the configuration would give.
    rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
    return rule


@pytest.fixture(name="path")
def path_fixture(rule, tmp_path):
    path = tmp_path / "presets" / "mine"
    presets.save_preset(rule, path, CARD)
    return path


@pytest.fixture(name="shipped")
def shipped_fixture(rule, tmp_path, monkeypatch):
    """A folder that stands for the package's own, with the presets `alpha` and `beta`."""
    folder = tmp_path / "shipped"
    monkeypatch.setattr(presets, "_shipped_folder", lambda: folder)
    for name in ("beta", "alpha"):
        presets.save_preset(rule, folder / name, {**CARD, "name": name})
    (folder / "__pycache__").mkdir()
    (folder / "__init__.py").touch()
    return folder


@pytest.fixture(name="groups")
def groups_fixture(rule):
    """Rules of two groups, the last one of the name that would come first."""
    other = NTMBFGS((4,), 2, memory_rank=3, seed=0)
    other.set_weights([w + 0.5 for w in other.get_weights()])
    return {"conv": rule, ".*": other}


def assert_same_groups(actual, expected):
    assert list(actual) == list(expected)
    for group, rule in expected.items():
        assert type(actual[group]) is type(rule)
        own, config = actual[group].get_config(), rule.get_config()
        assert own | {"name": None} == config | {"name": None}
        for weight, expected_weight in zip(
            actual[group].get_weights(), rule.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(weight, expected_weight)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class TestRoundTrip:
    def test_gives_the_same_rule_and_card(self, rule, path):
        loaded, card = presets.load_preset(path)
        assert card == CARD
        assert loaded.get_config() == rule.get_config()
        for weight, expected in zip(loaded.get_weights(), rule.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)

    def test_same_rule_gives_the_same_bytes(self, rule, path):
        presets.save_preset(rule, path.with_name("again"), CARD)
        assert contents(path.with_name("again")) == contents(path)

    def test_files_hold_no_pickle(self, path):
        assert set(contents(path)) == {"config.json", "weights.npz", "card.json", "README.md"}
        with np.load(path / "weights.npz", allow_pickle=False) as arrays:
            assert {array.dtype.name for array in arrays.values()} == {"float32"}
        config = json.loads((path / "config.json").read_text())
        assert config["registered_name"] == "l2l_keras>CoordinatewiseLSTM"

    def test_takes_strings_and_relative_paths(self, path, monkeypatch):
        monkeypatch.chdir(path.parent)
        assert presets.load_preset("mine")[1] == presets.load_preset(str(path))[1] == CARD


class TestGroups:
    def test_a_round_trip_gives_the_same_rules_in_their_order(self, groups, tmp_path):
        presets.save_preset(groups, tmp_path / "mine", CARD)
        loaded, card = presets.load_preset(tmp_path / "mine")
        assert_same_groups(loaded, groups)
        assert card == CARD
        config = json.loads((tmp_path / "mine" / "config.json").read_text())
        assert list(config) == ["groups"]
        assert config["groups"]["conv"]["registered_name"] == "l2l_keras>CoordinatewiseLSTM"

    def test_an_optimizer_is_made_of_them_and_makes_them_again(self, groups, tmp_path):
        presets.save_preset(groups, tmp_path / "mine", CARD)
        optimizer = LearnedOptimizer.from_preset(tmp_path / "mine", learning_rate=0.5)
        assert_same_groups(optimizer.rule, groups)
        assert float(optimizer.learning_rate) == 0.5
        optimizer.save_to_preset(tmp_path / "again", CARD)
        again, card = presets.load_preset(tmp_path / "again")
        assert_same_groups(again, groups)
        assert card == CARD

    def test_a_group_without_a_rule_is_no_preset(self, groups, tmp_path):
        for bad, message in [
            ({**groups, "bias": keras.optimizers.Adam()}, "must have an update rule.*'bias'"),
            ({}, "At least one group must have"),
            ({**groups, "bias": "adam"}, "Received: 'bias': 'adam'"),
        ]:
            with pytest.raises(ValueError, match=message):
                presets.save_preset(bad, tmp_path / "mine", CARD)
        optimizer = LearnedOptimizer({"bias": keras.optimizers.Adam(), **groups})
        with pytest.raises(ValueError, match="must have an update rule.*'bias'"):
            optimizer.save_to_preset(tmp_path / "mine")
        assert not (tmp_path / "mine").exists()

    def test_weights_that_are_not_theirs_are_refused(self, groups, tmp_path):
        path = tmp_path / "mine"
        presets.save_preset(groups, path, CARD)
        weights = [w for rule in groups.values() for w in rule.get_weights()]
        np.savez(path / "weights.npz", *groups["conv"].get_weights())
        with pytest.raises(
            ValueError,
            match="must hold 13 arrays, the weights of its CoordinatewiseLSTM and NTMBFGS. "
            "Received: 8 arrays",
        ):
            presets.load_preset(path)
        # Those of the second group start with the ninth.
        np.savez(path / "weights.npz", *weights[:8], weights[8][:-1], *weights[9:])
        with pytest.raises(ValueError, match=r"Array 8 .*Received: float32 of shape \(15, 4\)"):
            presets.load_preset(path)

    def test_another_type_of_object_in_a_group_is_refused(self, groups, tmp_path):
        path = tmp_path / "mine"
        presets.save_preset(groups, path, CARD)
        config = json.loads((path / "config.json").read_text())
        config["groups"][".*"] = keras.saving.serialize_keras_object(keras.layers.Dense(2))
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="UpdateRule.*Received: None in"):
            presets.load_preset(path)

    def test_a_preset_of_one_rule_replaces_one_of_groups(self, groups, tmp_path):
        path = tmp_path / "mine"
        presets.save_preset(groups, path, CARD)
        presets.save_preset(RNNprop((3,), seed=0), path, CARD)
        assert isinstance(presets.load_preset(path)[0], RNNprop)


class TestSaving:
    def test_replaces_a_preset_whole(self, path):
        other = CoordinatewiseLSTM(units=(4,), seed=2)
        presets.save_preset(other, path, {"name": "other"})
        loaded, card = presets.load_preset(path)
        assert card == {"name": "other"}
        assert loaded.units == (4,)
        assert os.listdir(path.parent) == ["mine"]

    @pytest.mark.parametrize("kind", ["file", "empty folder", "folder", "preset and more"])
    def test_refuses_to_replace_anything_else(self, rule, path, kind):
        target = path.with_name("target")
        if kind == "preset and more":
            target = path
            (path / "notes.txt").write_text("Mine.")
        elif kind == "file":
            target.write_text("Mine.")
        else:
            target.mkdir()
            if kind == "folder":
                (target / "notes.txt").write_text("Mine.")
        before = target.read_bytes() if target.is_file() else contents(target)
        with pytest.raises(ValueError, match="must be new, or a preset to replace.*Received"):
            presets.save_preset(rule, target, CARD)
        assert before == (target.read_bytes() if target.is_file() else contents(target))

    @pytest.mark.parametrize("value", [object(), float("nan")])
    def test_a_card_that_json_cannot_hold_changes_nothing(self, rule, path, value):
        before = contents(path)
        with pytest.raises((TypeError, ValueError)):
            presets.save_preset(rule, path, {"name": value})
        assert contents(path) == before
        assert os.listdir(path.parent) == ["mine"]

    def test_a_full_disk_leaves_the_old_preset(self, rule, path):
        resource = pytest.importorskip("resource")  # Not on Windows.
        before = contents(path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            with pytest.raises(OSError):
                presets.save_preset(rule, path, {"name": "other"})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert contents(path) == before
        assert os.listdir(path.parent) == ["mine"]

    @pytest.mark.parametrize("key", REQUIRED)
    def test_a_shipped_preset_must_tell_where_it_comes_from(self, rule, shipped, key):
        card = {k: v for k, v in CARD.items() if k != key}
        with pytest.raises(ValueError, match=f"Received: a card without {key}"):
            presets.save_preset(rule, shipped / "gamma", card)
        assert not (shipped / "gamma").exists()


class TestShipped:
    def test_are_listed_in_order(self, shipped):
        assert list(presets.list_presets()) == ["alpha", "beta"]
        assert presets.list_presets()["beta"] == {**CARD, "name": "beta"}

    def test_are_printed_as_a_table(self, shipped):
        expected = [
            "preset  use it for  cost (a step of Adam: 1)",
            "alpha   tests       3 to 5",
            "beta    tests       3 to 5",
        ]
        for text in (repr(presets.list_presets()), str(presets.list_presets())):
            assert text.splitlines()[:3] == expected
            assert 'list_presets()["NAME"]' in text

    def test_the_table_is_short(self):
        lines = repr(presets.list_presets()).splitlines()
        assert len(lines) == len(presets.list_presets()) + 3
        assert max(map(len, lines)) <= 120

    def test_are_loaded_by_name(self, shipped, tmp_path, monkeypatch):
        other = CoordinatewiseLSTM(units=(4,))
        presets.save_preset(other, tmp_path / "alpha", {"name": "a folder of the same name"})
        monkeypatch.chdir(tmp_path)
        assert presets.load_preset("alpha")[1]["name"] == "alpha"
        assert presets.load_preset("./alpha")[0].units == (4,)

    def test_all_load(self):
        for name, card in presets.list_presets().items():
            rule, loaded_card = presets.load_preset(name)
            assert card == loaded_card
            assert all(card[key] for key in REQUIRED)
            assert card["name"] == name
            weights = parameter_groups.weights(rule)
            assert weights and all(np.isfinite(weight).all() for weight in weights)

    def test_configurations_name_every_argument(self):
        """A default that changes does not change a shipped rule."""
        for name in presets.list_presets():
            rule, _ = presets.load_preset(name)
            folder = importlib.resources.files(presets).joinpath(name)
            config = json.loads(folder.joinpath("config.json").read_text("utf-8"))
            for group, own in config.get("groups", {".*": config}).items():
                named = own["config"].keys()
                assert named == parameter_groups.members(rule)[group].get_config().keys(), name

    def test_an_unknown_name_is_answered_with_the_known_ones(self, shipped):
        with pytest.raises(ValueError, match=r"\['alpha', 'beta'\].*'alhpa' \(did you mean 'alph"):
            presets.load_preset("alhpa")
        with pytest.raises(ValueError, match="Received: 'unlike all'$"):
            presets.load_preset("unlike all")


class TestDamage:
    @pytest.mark.parametrize("file", ["config.json", "weights.npz", "card.json"])
    def test_a_missing_file_is_named(self, path, file):
        (path / file).unlink()
        with pytest.raises(ValueError, match=f"which has no {file}"):
            presets.load_preset(path)

    @pytest.mark.parametrize("file", ["config.json", "weights.npz", "card.json"])
    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"{", b"[]"], ids=str)
    def test_a_file_of_something_else_is_named(self, path, file, content):
        (path / file).write_bytes(content)
        with pytest.raises(ValueError, match=f"A preset's {file} must .*Received: "):
            presets.load_preset(path)

    def test_wrong_number_of_weights(self, path, rule):
        np.savez(path / "weights.npz", *rule.get_weights()[:-1])
        with pytest.raises(ValueError, match="must hold 8 arrays.*Received: 7 arrays"):
            presets.load_preset(path)

    def test_wrong_shape_or_dtype_of_a_weight(self, path, rule):
        weights = rule.get_weights()
        for wrong, received in [
            (weights[2][:-1], r"float32 of shape \(11,\)"),
            (weights[2].astype("float64"), r"float64 of shape \(12,\)"),
        ]:
            np.savez(path / "weights.npz", *weights[:2], wrong, *weights[3:])
            expected = r"Array 2 .*must be float32 of shape \(12,\). Received: "
            with pytest.raises(ValueError, match=expected + received):
                presets.load_preset(path)

    def test_pickled_weights_are_refused(self, path, rule):
        arrays = [np.array([print], dtype=object), *rule.get_weights()[1:]]
        np.savez(path / "weights.npz", *arrays)
        with pytest.raises(ValueError, match="allow_pickle=False"):
            presets.load_preset(path)

    def test_code_in_the_configuration_is_refused(self, path):
        layer = keras.layers.Lambda(lambda x: x)
        config = keras.saving.serialize_keras_object(layer)
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="UpdateRule.*Received: None in"):
            presets.load_preset(path)

    def test_another_type_of_object_is_refused(self, path):
        config = keras.saving.serialize_keras_object(keras.layers.Dense(2))
        (path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match="UpdateRule.*Received: None in"):
            presets.load_preset(path)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
