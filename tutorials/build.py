"""Makes notebooks of the tutobooks in this folder, and runs them.

  python tutorials/build.py                                   # all of them
  python tutorials/build.py tutorials/style_your_photograph.py

A tutobook is a Python file: a header in triple quotes, Markdown in triple quotes, code between.
The notebook beside it is generated, outputs included: change the tutobook, not the notebook.

Source: the tutobooks of keras-io, https://github.com/keras-team/keras-io.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbclient
import nbformat
from absl import app

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
HEADER = ("Title", "Author", "Date created", "Last modified", "Description", "Accelerator")
SECONDS_PER_CELL = 1800
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def tutobooks() -> list[Path]:
    """Returns the tutobooks in this folder, in alphabetical order."""
    return [
        path
        for path in sorted(FOLDER.glob("*.py"))
        if path.read_text(encoding="utf-8").startswith('"""\nTitle: ')
    ]


def cells(text: str) -> list[tuple[str, str]]:
    """Splits a tutobook into cells.

    Args:
        text: Of the tutobook.

    Returns:
        `(cell_type, source)` of every cell, the header's first; cell_type is `"markdown"` or `"code"`.

    Raises:
        ValueError: If a line of the header is missing.
        SyntaxError: If the text is not Python.
    """
    (_, header), *rest = _blocks(text)
    return [("markdown", _title(header)), *rest]


def notebook(text: str) -> nbformat.NotebookNode:
    """Returns the notebook of a tutobook, without outputs.

    Args:
        text: Of the tutobook.

    Raises:
        ValueError: If a line of the header is missing.
        SyntaxError: If the text is not Python.
    """
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    book = nbformat.v4.new_notebook(metadata=_METADATA)
    for number, (cell_type, source) in enumerate(cells(text)):
        # The default id is random.
        book.cells.append(make[cell_type](source, id=f"cell-{number}"))
    return book


def execute(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Runs a notebook in an empty folder, and returns it with its outputs.

    Args:
        book: The notebook; it is changed.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises an error.
        ValueError: If an output names a folder of this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            book,
            timeout=SECONDS_PER_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
            # Leaves out what C++ libraries write, such as TensorFlow's log.
            extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        )
        # Uses the package of this checkout, even if another one is installed.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        client.execute(env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
        private = {folder, str(ROOT), str(Path.home()), sys.prefix} - {"/"}
    book.metadata = nbformat.from_dict(_METADATA)  # Without Python's version.
    for cell in book.cells:
        for text in texts(cell):
            named = [path for path in private if path in text]
            if named:
                raise ValueError(f"An output names {named[0]!r}, which is of this machine: {text}")
    return book


def texts(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yields the textual outputs of a cell, without images."""
    for output in cell.get("outputs", ()):
        yield output.get("text", "")
        for mime_type, content in output.get("data", {}).items():
            if mime_type.startswith("text/"):
                yield content


def main(argv: list[str]) -> None:
    """Makes and runs the notebooks of the named tutobooks, or of all."""
    for path in [Path(name) for name in argv[1:]] or tutobooks():
        book = execute(notebook(path.read_text(encoding="utf-8")))
        nbformat.write(book, path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb"))


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yields the cell types and sources of a tutobook, without empty cells."""
    lines = text.splitlines()
    code_start = 0
    for node in ast.parse(text).body:
        match node:
            case ast.Expr(value=ast.Constant(value=str(markdown))):
                code = "\n".join(lines[code_start : node.lineno - 1]).strip()
                if code:
                    yield "code", code
                yield "markdown", markdown.strip()
                code_start = node.end_lineno
    code = "\n".join(lines[code_start:]).strip()
    if code:
        yield "code", code


def _title(header: str) -> str:
    """Returns the first cell of a notebook, made from the header of its tutobook."""
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    if tuple(fields) != HEADER:
        raise ValueError(
            f"A tutobook must start with the lines {', '.join(HEADER)}. Received: {header!r}"
        )
    title = fields.pop("Title")
    return f"# {title}\n\n" + "<br>\n".join(f"**{key}:** {fields[key]}" for key in fields)


if __name__ == "__main__":
    app.run(main)
