"""Figures as bars: ``python -m benchmarks.picture FIGURES.json PICTURE.svg``."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from xml.sax.saxutils import escape

from .contenders import title
from .rounds import Run
from .rounds import Summary

_NAMES, _BARS, _ROW = 250, 480, 26


def drawn(summaries: Sequence[Summary], heading: str) -> str:
    """A picture in SVG: medians as bars, the lowest and highest rate as a line."""
    ordered = sorted(summaries, key=lambda s: s.median("rate"), reverse=True)
    most = max(summary.spread[1] for summary in ordered)
    rows = [_row(at, each, most) for at, each in enumerate(ordered)]
    width, height = _NAMES + _BARS + 90, (len(rows) + 2) * _ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        ' font-family="sans-serif" font-size="13">'
    )
    back = f'<rect width="{width}" height="{height}" fill="#fff"/>'
    text = f'<text x="8" y="18" font-weight="bold">{escape(heading)}</text>'
    return "\n".join([head, back, text, *rows, "</svg>\n"])


def _row(at: int, summary: Summary, most: float) -> str:
    top = (at + 1.5) * _ROW
    rate = summary.median("rate")
    low, high = (_NAMES + each / most * _BARS for each in summary.spread)
    middle = top + _ROW / 2 - 3
    fill = "#2f6f4f" if summary.contender.startswith("us") else "#9aa7b0"
    name = escape(title(summary.contender))
    return (
        f'<text x="{_NAMES - 8}" y="{middle + 4:.0f}" text-anchor="end">{name}</text>'
        f'<rect x="{_NAMES}" y="{top:.0f}" width="{rate / most * _BARS:.0f}"'
        f' height="{_ROW - 6}" fill="{fill}"/>'
        f'<line x1="{low:.0f}" x2="{high:.0f}" y1="{middle:.0f}" y2="{middle:.0f}"'
        ' stroke="#000"/>'
        f'<text x="{high + 6:.0f}" y="{middle + 4:.0f}">{rate:,.0f}/s</text>'
    )


def main(figures: str, picture: str) -> None:
    record = json.loads(pathlib.Path(figures).read_text())
    runs = [Run(**run) for run in record["runs"]]
    names = dict.fromkeys(run.contender for run in runs)
    summaries = [Summary(n, [r for r in runs if r.contender == n]) for n in names]
    options = record["options"]
    what = f"{options['do']}, {options['broker']}: messages a second"
    pathlib.Path(picture).write_text(drawn(summaries, what))


if __name__ == "__main__":
    main(*sys.argv[1:])
