"""Generates and executes the notebooks of the tutobooks in this folder.

  python tutorials/build.py                                   # all of them
  python tutorials/build.py tutorials/style_your_photograph.py

A tutobook is a Python file: a header in triple quotes, Markdown in triple quotes, code between.
Edit the tutobook, not the notebook beside it. The format is that of
https://github.com/keras-team/keras-io. The documentation's page of tutorials is written, too. A
notebook's metadata hold the seconds of processor time that its execution took, and a digest by
which a test sees that the outputs are those of the cells.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

REPOSITORY = "l2l-keras/l2l_keras"  # On GitHub, for links to notebooks.
FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "tutorials.md"
HEADER = ("Title", "Author", "Date created", "Last modified", "Description", "Accelerator")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_PAGE = """# Tutorials

Notebooks with their outputs, each at most three minutes on two processor cores. Their data come with Python
packages; the photograph is yours.

| tutorial | what it does | |
| --- | --- | --- |"""
EXECUTION = "execution"  # Key of what the metadata of an executed notebook hold in addition.


def tutobooks() -> list[Path]:
    """Returns the tutobooks in this folder, in alphabetical order."""
    return sorted(p for p in FOLDER.glob("*.py") if p.read_text("utf-8").startswith('"""\nTitle:'))


def notebook(text: str, name: str) -> nbformat.NotebookNode:
    """Returns the notebook of a tutobook's text, without outputs.

    Args:
        text: The tutobook.
        name: Its file's name, without a suffix.

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
    cells[0] = ("markdown", _title(cells[0][1], name))
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    # Default ids are random.
    numbered = [make[kind](source, id=f"cell-{k}") for k, (kind, source) in enumerate(cells)]
    return nbformat.v4.new_notebook(metadata=METADATA, cells=numbered)


def page() -> str:
    """Returns the documentation's page of all tutorials, from their headers."""
    rows = []
    for path in tutobooks():
        fields = _fields(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
        read = f"https://github.com/{REPOSITORY}/blob/main/tutorials/{path.stem}.ipynb"
        run = f"[run it]({_colab(path.stem)})"
        rows.append(f"| [{fields['Title']}]({read}) | {fields['Description']} | {run} |")
    return "\n".join([_PAGE, *rows, ""])


def _colab(name: str) -> str:
    file = f"github/{REPOSITORY}/blob/main/tutorials/{name}.ipynb"
    return f"https://colab.research.google.com/{file}"


def _fields(header: str) -> dict[str, str]:
    fields = dict(line.split(": ", 1) for line in header.splitlines() if ": " in line)
    if tuple(fields) != HEADER:
        raise ValueError(f"Expected a header of {', '.join(HEADER)}. Received: {header!r}")
    return fields


def _title(header: str, name: str) -> str:
    title, *others = _fields(header).items()
    lines = "<br>\n".join(f"**{key}:** {value}" for key, value in others)
    links = (
        f"[**View in Colab**]({_colab(name)}) • "
        f"[**GitHub source**](https://github.com/{REPOSITORY}/blob/main/tutorials/{name}.py)"
    )
    install = f'`%pip install "l2l-keras[tutorials] @ git+https://github.com/{REPOSITORY}"`'
    return f"# {title[1]}\n\n{lines}\n\n{links}\n\nIn Colab, first run {install}."


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
        before = _processor_seconds()
        client.execute(env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)})
    execution = {"seconds": round(_processor_seconds() - before), "digest": digest(book)}
    # Without the version of Python.
    book.metadata = nbformat.from_dict({**METADATA, EXECUTION: execution})
    for private in {folder, str(FOLDER.parent), str(Path.home()), sys.prefix} - {"/"}:
        if private in (text := "\n".join(texts(book))):
            raise ValueError(f"Expected no folder of this machine. Received: {private!r} in {text}")
    return book


def _processor_seconds() -> float:
    """Returns the processor time of kernels that have ended, whatever else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def digest(book: nbformat.NotebookNode) -> str:
    """Returns a text that changes with a notebook's cells or outputs."""
    parts = [(cell.cell_type, cell.source, cell.get("outputs", [])) for cell in book.cells]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def texts(book: nbformat.NotebookNode) -> list[str]:
    """Returns the texts among the outputs of a notebook."""
    outputs = [output for cell in book.cells for output in cell.get("outputs", ())]
    data = [item for output in outputs for item in output.get("data", {}).items()]
    found = [output.get("text", "") for output in outputs]
    return found + [content for kind, content in data if kind.startswith("text/")]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for tutobook in [Path(name) for name in sys.argv[1:]] or tutobooks():
        executed = execute(notebook(tutobook.read_text("utf-8"), tutobook.stem))
        nbformat.write(executed, tutobook.with_suffix(".ipynb"))
        print(f"{tutobook.with_suffix('.ipynb')}: {executed.metadata[EXECUTION]['seconds']} s")
