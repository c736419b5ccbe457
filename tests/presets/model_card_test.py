"""Tests of the README.md of a preset: what the card knows, told in Markdown."""

import ast
import re

import huggingface_hub
import keras
import pytest

from l2l_keras import LearnedOptimizer, presets
from l2l_keras.presets import model_card
from l2l_keras.rules import CoordinatewiseLSTM, RNNprop

CARD = {
    "name": "mine",
    "description": "A rule for lines.",
    "use_for": "lines",
    "cost": "3 to 5",
    "task": "line",
    "horizon": 100,
    "command": "l2l-meta-train --task=line",
    "seed": 3,
    "validation_final_loss": 0.0123456,
    "wall_seconds": 12,
    "peak_memory_mb": 900,
    "date": "2026-11-30",
    "note": "Stopped early.",
    "versions": {"keras": "3.10.0"},
    "licence": "Apache-2.0",
    "fails_on": {"curves": "diverges", "a | b": "<img>"},
    "results": {"final loss, 10 runs": {"learned": 0.00123456, "Adam": 0.5}},
    "testbed": {
        "100": {"final_loss": 0.75, "worst": 1.2},
        "1000": {"final_loss": 0.5, "worst": 1.1},
    },
}


@pytest.fixture(name="rule", scope="module")
def rule_fixture():
    return CoordinatewiseLSTM(units=(2,), seed=0)


def sections(text):
    """The parts of a page by their headings."""
    _, *parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {heading: part.strip() for heading, part in zip(parts[::2], parts[1::2], strict=True)}


class TestText:
    def test_tells_what_the_card_knows(self, rule):
        page = sections(model_card.render(CARD, rule, "hf://user/mine"))
        assert page["mine"].startswith("A rule for lines.\n")
        assert f"CoordinatewiseLSTM, a rule of {rule.count_params()} meta-trained" in page["mine"]
        for section, line in [
            ("Use", "| Use it for | lines |"),
            ("Use", "| Time of a step (Adam: 1) | 3 to 5 |"),
            ("Meta-training", "| Task | line |"),
            ("Meta-training", "| Longest episode, steps | 100 |"),
            ("Meta-training", "| Command | l2l-meta-train --task=line |"),
            ("Meta-training", "| Final loss on validation optimizees | 0.01235 |"),
            ("Meta-training", "Stopped early."),
            ("Results", "final loss, 10 runs:"),
            ("Results", "| learned | 0.001235 |"),
            ("Results", "| Adam | 0.5 |"),
            ("Testbed", "| Steps | final loss | worst |"),
            ("Testbed", "| 1000 | 0.5 | 1.1 |"),
            ("Where it fails", "| curves | diverges |"),
            ("Versions", "| keras | 3.10.0 |"),
        ]:
            assert line in page[section].splitlines(), line

    def test_says_how_to_use_it_in_three_lines(self, rule):
        text = model_card.render(CARD, rule, "hf://user/mine")
        (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        assert len([line for line in program.splitlines() if line]) == 3
        calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
        (load,) = [call for call in calls if ast.unparse(call.func).endswith("from_preset")]
        assert ast.literal_eval(load.args[0]) == "hf://user/mine"

    def test_the_program_has_the_schedule_that_the_rule_was_trained_with(self, rule):
        text = model_card.render({**CARD, "schedule": "cosine"}, rule, "folder")
        assert "| Learning rate in an episode | cosine |" in text.splitlines()
        (program,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        names = {"steps": 10, "model": model}
        exec(program.replace('"folder"', '"general-fast"'), names)
        assert isinstance(model.optimizer, LearnedOptimizer)
        rates = [float(names["rate"](step)) for step in (0, 5, 10)]
        assert rates == pytest.approx([1.0, 0.5, 0.0], abs=1e-6)

    def test_leaves_out_what_the_card_does_not_know(self, rule):
        page = sections(model_card.render({}, rule, "folder"))
        assert list(page) == ["folder", "Use"]
        assert "|" not in page["Use"]

    @pytest.mark.parametrize(
        ("results", "line"),
        [({"loss": 0.25}, "| loss | 0.25 |"), ("good", "good"), ({"a": {}, "b": 1}, "| b | 1 |")],
    )
    def test_takes_results_of_any_form(self, rule, results, line):
        page = sections(model_card.render({"results": results}, rule, "folder"))
        assert line in page["Results"].splitlines()

    def test_no_entry_leaves_its_cell(self, rule):
        text = model_card.render({**CARD, "name": "a\n# b"}, rule, "folder")
        assert "| a \\| b | &lt;img> |" in text.splitlines()
        assert "# a # b" in text.splitlines()

    def test_names_the_rules_of_groups(self, rule):
        groups = {"bias": RNNprop((2,), seed=0), ".*": rule}
        text = model_card.render(CARD, groups, "folder")
        weights = rule.count_params() + groups["bias"].count_params()
        assert f"'bias': RNNprop, CoordinatewiseLSTM, a rule of {weights} meta-trained" in text

    def test_every_shipped_preset_has_one(self):
        for name, card in presets.list_presets().items():
            rule, _ = presets.load_preset(name)
            page = sections(model_card.render(card, rule, name))
            assert {"Use", "Meta-training", "Where it fails", "Versions"} < page.keys()
            assert {"Results", "Testbed"} & page.keys()


class TestHeader:
    def header(self, card, rule):
        return huggingface_hub.ModelCard(model_card.render(card, rule, "folder")).data.to_dict()

    def test_files_the_preset(self, rule):
        assert self.header(CARD, rule) == {
            "library_name": "l2l-keras",
            "tags": ["keras", "learned-optimizer", "meta-learning"],
            "license": "apache-2.0",
        }

    def test_names_a_licence_only_if_there_is_one(self, rule):
        assert not {"license", "license_name"} & self.header({"name": "mine"}, rule).keys()

    @pytest.mark.parametrize("licence", ["Mine: all of it", 'a "b"\n---', "yes"])
    def test_takes_any_licence(self, rule, licence):
        header = self.header({"licence": licence}, rule)
        assert (header["license"], header["license_name"]) == ("other", licence)


class TestFile:
    def test_is_written_beside_the_weights(self, rule, tmp_path):
        presets.save_preset(rule, tmp_path / "mine", CARD)
        text = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
        assert text == model_card.render(CARD, rule, "path/of/this/folder")

    def test_is_written_anew_with_the_preset(self, rule, tmp_path):
        presets.save_preset(rule, tmp_path / "mine", CARD)
        presets.save_preset(rule, tmp_path / "mine", {"name": "other"})
        assert "# other" in (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")

    def test_an_own_one_is_kept(self, rule, tmp_path):
        presets.save_preset(rule, tmp_path / "mine", CARD)
        (tmp_path / "mine" / "README.md").write_text("Für mich.", encoding="utf-8")
        presets.save_preset(rule, tmp_path / "mine", {"name": "other"})
        assert (tmp_path / "mine" / "README.md").read_text(encoding="utf-8") == "Für mich."
        assert presets.load_preset(tmp_path / "mine")[1] == {"name": "other"}

    def test_a_preset_without_one_is_a_preset(self, rule, tmp_path):
        presets.save_preset(rule, tmp_path / "mine", CARD)
        (tmp_path / "mine" / "README.md").unlink()
        assert presets.load_preset(tmp_path / "mine")[1] == CARD
        presets.save_preset(rule, tmp_path / "mine", CARD)
        assert (tmp_path / "mine" / "README.md").is_file()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
