"""Holds the documentation to its data: generated tables, cards, links."""

import ast
import importlib
import importlib.util
import json
import re
import statistics
from pathlib import Path

import pytest

import l2l_keras

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
TUTORIALS = sorted(ROOT.glob("tutorials/*.ipynb"))
# Programs of results and research notes record how something was measured on its date.
RECORDS = (DOCS / "results", DOCS / "research")
SLOW = {"how_to/meta_train.md"}
# Modules of l2l_keras.scripts.
COMMANDS = {
    f"l2l-{name.replace('_', '-')}": name
    for name in ("benchmark", "evaluate", "explain", "meta_train", "reproduce", "transfer")
}


def load_script(name):
    """Returns a script beside the pages, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables, gallery = load_script("tables"), load_script("gallery")


def read(name):
    return json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))


def script(command):
    return importlib.import_module(f"l2l_keras.scripts.{COMMANDS[command]}")


def anchors(path):
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_page_shows_formatted_values_summaries_and_missing_ones():
    page = {
        "title": "Title",
        "text": ["Text."],
        "heading": "{steps:,} steps",
        "columns": {"problem": "{problem}", "loss": "{loss:.2f}"},
        "summary": {"problem": "mean", "loss": "**{loss:.3f}**"},
        "missing": "not reached",
        "tables": [
            {
                "steps": 1000,
                "rows": [{"problem": "a", "loss": 0.5}, {"problem": "b", "loss": None}],
                "summary": {"loss": 0.25},
            }
        ],
    }
    assert tables.render(page).splitlines() == [
        *("# Title", "", "Text.", "", "## 1,000 steps", ""),
        *("| problem | loss |", "| --- | --- |", "| a | 0.50 |", "| b | not reached |"),
        "| mean | **0.250** |",
    ]


def test_generated_pages_are_up_to_date():
    """If it fails: python docs/tables.py."""
    data = sorted((DOCS / "results").glob("*.json"))
    assert {path.stem for path in data} == {path.stem for path in (DOCS / "results").glob("*.md")}
    for path in data:
        page = path.with_suffix(".md").read_text(encoding="utf-8")
        assert page == tables.render(read(path.stem)), path


def test_pages_of_presets_are_up_to_date():
    """If it fails: python docs/gallery.py."""
    pages = gallery.pages(l2l_keras.list_presets())
    assert {*(DOCS / "presets").glob("*.md")} == {*pages, DOCS / "presets" / "index.md"}
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, path


@pytest.mark.parametrize("name", l2l_keras.list_presets())
def test_pictures_of_presets_show_their_rules_and_are_small(name):
    """If it fails: python docs/gallery.py."""
    for kind in gallery.PICTURES:
        assert gallery.is_current(name, kind)
        assert gallery.picture_path(name, kind).stat().st_size < 60_000


def test_a_picture_of_another_rule_is_not_current(monkeypatch):
    monkeypatch.setattr(gallery, "digest", lambda name: "another")
    assert not gallery.is_current("quadratic", "paths")


@pytest.mark.parametrize(
    "table", read("testbed")["tables"], ids=lambda t: f"{t['preset']}-{t['steps']}"
)
def test_cards_and_results_agree_with_the_testbed(table):
    card = json.loads((ROOT / f"l2l_keras/presets/{table['preset']}/card.json").read_text("utf-8"))
    assert set(card["testbed"]) == {"100", "1000", "10000"}
    assert card["testbed"][str(table["steps"])] == table["summary"]
    row = [f"`{table['preset']}`", f"{table['steps']:,}", *map(str, table["summary"].values())]
    assert f"| {' | '.join(row)} |" in (DOCS / "results.md").read_text(encoding="utf-8")


def test_testbed_summaries_follow_from_their_rows():
    """As far as rows are rounded: to two digits, 0.03 at the least."""
    for table in read("testbed")["tables"]:
        rows, summary = table["rows"], table["summary"]
        assert len(rows) == 17
        assert max(row["ratio"] for row in rows) == summary["worst"]
        for name, key in (("final_loss", "ratio"), ("steps", "steps"), ("seconds", "seconds")):
            values = [1.5 if row[key] is None else row[key] for row in rows]
            assert statistics.geometric_mean(values) == pytest.approx(summary[name], rel=0.02)
        below = sum(row["mean_loss_ratio"] < 1.0 for row in rows)
        at_most = sum(row["mean_loss_ratio"] <= 1.0 for row in rows)
        published = float(summary["lower_mean_loss"].rstrip("%")) / 100 * len(rows)
        assert below - 0.1 <= published <= at_most + 0.1


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def programs(page):
    """Returns the Python of a page, block by block."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def pages_with_programs():
    names = {page: page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    return [
        pytest.param(page, id=name, marks=[pytest.mark.slow] * (name in SLOW))
        for page, name in sorted(names.items())
        if page.parent not in RECORDS and programs(page)
    ]


@pytest.mark.parametrize("page", pages_with_programs())
def test_programs_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = {"__name__": "page"}
    for program in programs(page):
        if name := re.match(r"# (\w+\.py)\n", program):  # A file of the user's.
            (tmp_path / name[1]).write_text(program, encoding="utf-8")
        exec(compile(program, str(page), "exec"), variables)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_parses_and_commands_have_their_flags(page):
    text = page.read_text(encoding="utf-8")
    for program in programs(page):
        ast.parse(program)
    common = {"help", "version"}
    known = common.union(*(script(command).FLAGS for command in COMMANDS))
    for code in re.findall(r"```.*?```|`[^`]+`", text, flags=re.DOTALL):
        if code.startswith("`--"):
            assert set(re.findall(r"--(\w+)", code)) <= known, code
        for command, arguments in re.findall(r"\b(l2l-[a-z-]+)(.*?)(?=\bl2l-|$)", code, re.DOTALL):
            flags = set(re.findall(r"(?<=\s)--(\w+)", arguments))
            assert flags - common <= set(script(command).FLAGS), (command, flags)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
