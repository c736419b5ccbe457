"""Writes the tables of docs/results from the JSON files beside them: `python docs/tables.py`.

A JSON file is one page: a `title`, paragraphs of `text`, and `tables`. A table has `rows` of named
values and may have a `summary`, the values of its last row. These entries of the page say how its
tables are shown:

- `heading`: the heading of a table, a format string of the table's own entries;
- `columns`: heading and format string of each column (a table may have its own);
- `summary`: the same for the last row;
- `missing`: what is shown for null.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"


def render(page: Mapping[str, Any]) -> str:
    """Returns the Markdown of a page.

    Args:
        page: Contents of the page's JSON file.
    """
    parts = [f"# {page['title']}", *page["text"]]
    for table in page["tables"]:
        parts.append(f"## {page['heading'].format_map(table)}")
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in _rows(page, table)))
    return "\n\n".join(parts) + "\n"


def _rows(page: Mapping[str, Any], table: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yields the cells of each line of a table."""
    columns = table.get("columns") or page["columns"]
    yield list(columns)
    yield ["---"] * len(columns)
    lines = [(columns, row) for row in table["rows"]]
    if "summary" in table:
        lines.append((page["summary"], table["summary"]))
    for formats, values in lines:
        shown = {k: _Missing(page["missing"]) if v is None else v for k, v in values.items()}
        yield [form.format_map(shown) for form in formats.values()]


class _Missing(str):
    """Text shown instead of a number, whose format it ignores."""

    def __format__(self, form: str) -> str:
        return str(self)


def main() -> None:
    """Writes the Markdown file beside each JSON file."""
    for path in sorted(FOLDER.glob("*.json")):
        page = json.loads(path.read_text(encoding="utf-8"))
        path.with_suffix(".md").write_text(render(page), encoding="utf-8")


if __name__ == "__main__":
    main()
