"""Generates and executes the notebooks of the tutobooks in this folder.

  python tutorials/build.py                                   # all of them
  python tutorials/build.py tutorials/style_your_photograph.py

A tutobook is a Python file: a header in triple quotes, Markdown in triple quotes, code between.
Edit the tutobook, not the notebook beside it. The format is that of
https://github.com/keras-team/keras-io.
"""

from __future__ import annotations

import ast
import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).resolve().parent
HEADER = ("Title", "Author", "Date created", "Last modified", "Description", "Accelerator")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def tutobooks() -> list[Path]:
    """Returns the tutobooks in this folder, in alphabetical order."""
    return sorted(p for p in FOLDER.glob("*.py") if p.read_text("utf-8").startswith('"""\nTitle:'))


def notebook(text: str) -> nbformat.NotebookNode:
    """Returns the notebook of a tutobook's text, without outputs.

    Raises:
        ValueError: If the header lacks a line.
        SyntaxError: If the text is not Python.
    """
    lines = text.splitlines()
    parts, end = [], 0
    for node in [*ast.parse(text).body, None]:
        start = node.lineno - 1 if node else len(lines)
        match node:
            case ast.Expr(value=ast.Constant(value=str(markdown))):
                parts += [("code", "\n".join(lines[end:start])), ("markdown", markdown)]
                end = node.end_lineno
            case None:
                parts.append(("code", "\n".join(lines[end:])))
    cells = [(kind, source.strip()) for kind, source in parts if source.strip()]
    cells[0] = ("markdown", _title(cells[0][1]))
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    # Default ids are random.
    numbered = [make[kind](source, id=f"cell-{k}") for k, (kind, source) in enumerate(cells)]
    return nbformat.v4.new_notebook(metadata=METADATA, cells=numbered)


def _title(header: str) -> str:
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    if tuple(fields) != HEADER:
        raise ValueError(f"Expected a header of {', '.join(HEADER)}. Received: {header!r}")
    title, *others = fields.items()
    return f"# {title[1]}\n\n" + "<br>\n".join(f"**{key}:** {value}" for key, value in others)


def execute(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Executes a notebook in place, in an empty folder, and returns it.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises an error.
        ValueError: If an output names a folder of this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            book,
            timeout=1800,  # Seconds for each cell.
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
            # Leaves out what C++ libraries write, such as TensorFlow's log.
            extra_arguments=["--IPKernelApp.capture_fd_output=False"],
        )
        # The package of this checkout, even if another one is installed.
        path = os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")])
        client.execute(env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)})
    book.metadata = nbformat.from_dict(METADATA)  # Without the version of Python.
    for private in {folder, str(FOLDER.parent), str(Path.home()), sys.prefix} - {"/"}:
        if private in (text := "\n".join(texts(book))):
            raise ValueError(f"Expected no folder of this machine. Received: {private!r} in {text}")
    return book


def texts(book: nbformat.NotebookNode) -> list[str]:
    """Returns the texts among the outputs of a notebook."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    data = [item for output in outputs for item in output.get("data", {}).items()]
    found = [output.get("text", "") for output in outputs]
    return found + [content for kind, content in data if kind.startswith("text/")]


if __name__ == "__main__":
    for tutobook in [Path(name) for name in sys.argv[1:]] or tutobooks():
        executed = execute(notebook(tutobook.read_text("utf-8")))
        nbformat.write(executed, tutobook.with_suffix(".ipynb"))
        print(tutobook.with_suffix(".ipynb"))
