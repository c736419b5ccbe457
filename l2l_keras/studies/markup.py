"""The parts of a report's page, as HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

from l2l_keras.studies import charts


def table(rows: Sequence[Sequence[str]], learned: Iterable[str] = ()) -> str:
    """Returns a table; rows of learned optimizers stand out."""
    header, *others = rows
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in header) + "</tr>"]
    for row in others:
        kind = ' class="learned"' if row[0] in learned else ""
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{kind}>{cells}</tr>")
    return f'<div class="table"><table>{"".join(lines)}</table></div>'


def bullets(texts: Iterable[str]) -> str:
    """Returns a list of sentences."""
    return f"<ul>{''.join(f'<li>{html.escape(text)}</li>' for text in texts)}</ul>"


def figures(*charts_and_captions: tuple[Any, str]) -> str:
    """Returns charts side by side where there is room, each with its caption."""
    parts = []
    for figure, caption in charts_and_captions:
        wide = figure.get_size_inches()[0] > 8
        drawing = _image(figure, caption) if wide else charts.to_svg(figure, html.escape(caption))
        kind = ' class="wide"' if wide else ""
        parts.append(
            f"<figure{kind}>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f'<div class="charts">{"".join(parts)}</div>'


def _image(figure: Any, label: str) -> str:
    """Returns a figure as an image within the page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(label)}" src="data:image/png;base64,{data}">'
