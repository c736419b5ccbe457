"""Tests of the tutorials: that notebooks are in step with their tutobooks, and run."""

import ast
import importlib.util
import os
import re
from pathlib import Path

import nbformat
import pytest

FILES = os.environ.get("L2L_KERAS_NEURAL_ART_DIR")
FOLDER = Path(__file__).resolve().parents[1] / "tutorials"


def _load_build():
    """The script beside the tutobooks, which are in no package."""
    spec = importlib.util.spec_from_file_location("tutorials_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = _load_build()
HEADER = """Title: A title
Author: Somebody
Date created: 2026/11/24
Last modified: 2026/11/24
Description: What it is: this.
Accelerator: None"""
TEXT = f'''"""
{HEADER}
"""
"""
# One
"""

import math  # A comment.

x = """Not Markdown."""


def f():
    """Not Markdown either."""


"""Two"""
"""Three"""
f()
'''
every_tutobook = pytest.mark.parametrize("path", build.tutobooks(), ids=lambda path: path.stem)


def outputs(book):
    return [output for cell in book.cells for output in cell.get("outputs", ())]


def run(*sources):
    """Runs a notebook of these cells."""
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{k}") for k, source in enumerate(sources)]
    return build.execute(nbformat.v4.new_notebook(cells=cells))


def test_there_is_a_tutobook_and_every_notebook_has_one():
    assert build.tutobooks()
    notebooks = {path.stem for path in FOLDER.glob("*.ipynb")}
    assert notebooks == {path.stem for path in build.tutobooks()}


def test_cells():
    (kind, title), *rest = build.cells(TEXT)
    assert kind == "markdown"
    assert title.startswith("# A title\n\n**Author:** Somebody<br>\n")
    assert "**Description:** What it is: this.<br>" in title
    code = TEXT[TEXT.index("import math") : TEXT.index('"""Two"""')].strip()
    assert rest == [
        ("markdown", "# One"),
        ("code", code),
        ("markdown", "Two"),
        ("markdown", "Three"),
        ("code", "f()"),
    ]


@pytest.mark.parametrize("line", HEADER.splitlines())
def test_every_line_of_the_header_is_needed(line):
    with pytest.raises(ValueError, match="must start with the lines Title, Author"):
        build.cells(TEXT.replace(f"{line}\n", ""))


def test_the_same_text_gives_the_same_notebook():
    assert build.notebook(TEXT) == build.notebook(TEXT)
    nbformat.validate(build.notebook(TEXT))


def test_execution_keeps_what_python_prints_and_nothing_else():
    book = run(
        "import os\nos.system('echo noise >&2')\nos.write(2, b'noise')\nprint('text')", "6*7"
    )
    first, *_, last = outputs(book)
    assert (first.name, first.text) == ("stdout", "text\n")
    assert last.data == {"text/plain": "42"}
    assert not [text for cell in book.cells for text in build.texts(cell) if "noise" in text]
    assert "execution" not in book.cells[0].metadata


def test_execution_fails_with_a_cell():
    with pytest.raises(build.nbclient.exceptions.CellExecutionError, match="no such thing"):
        run("raise ValueError('no such thing')")


def test_execution_refuses_outputs_with_folders_of_the_machine():
    with pytest.raises(ValueError, match="of this machine"):
        run("import os\nos.getcwd()")


@every_tutobook
def test_tutobook_parses_cell_by_cell(path):
    cells = build.cells(path.read_text(encoding="utf-8"))
    assert {kind for kind, _ in cells} == {"markdown", "code"}
    for kind, source in cells:
        if kind == "code":
            ast.parse(source)


@every_tutobook
def test_notebook_is_that_of_its_tutobook(path):
    """If it fails: python tutorials/build.py."""
    expected = build.notebook(path.read_text(encoding="utf-8"))
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(stored)
    assert stored.metadata == expected.metadata
    assert [(cell.id, cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in expected.cells
    ]


@every_tutobook
def test_notebook_has_been_run_from_top_to_bottom(path):
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    counts = [cell.execution_count for cell in stored.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    found = outputs(stored)
    assert any("image/png" in output.get("data", {}) for output in found)
    # Neither errors nor warnings.
    assert not [output for output in found if output.output_type == "error"]
    assert not [output for output in found if output.get("name") == "stderr"]
    words = "\n".join(text for cell in stored.cells for text in build.texts(cell))
    assert not re.search(r"(^|[\s'\"(])/(home|root|tmp|Users|mnt|var)/", words)


@pytest.mark.slow
@every_tutobook
def test_tutobook_runs(path, monkeypatch):
    if path.stem == "style_your_photograph":
        if not FILES:
            pytest.skip("L2L_KERAS_NEURAL_ART_DIR must name the folder of pictures and weights.")
        monkeypatch.setenv("STYLE_PICTURE", f"{FILES}/style/starry_night.jpg")
        monkeypatch.setenv("VGG16_WEIGHTS", f"{FILES}/vgg16_notop.weights.h5")
        monkeypatch.setenv("VGG16_PREPROCESSING", "torch")
    book = build.execute(build.notebook(path.read_text(encoding="utf-8")))
    stored = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    kinds = [[output.output_type for output in cell.get("outputs", ())] for cell in book.cells]
    assert kinds == [
        [output.output_type for output in cell.get("outputs", ())] for cell in stored.cells
    ]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
