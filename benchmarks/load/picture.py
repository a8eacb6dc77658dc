"""Charts of a trial: ``python -m benchmarks.load.picture FIGURES.csv PICTURE.svg``."""

from __future__ import annotations

import csv
import pathlib
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from xml.sax.saxutils import escape

from .trial import MODES

_LEFT, _WIDTH, _HEIGHT, _GAP = 70, 560, 150, 46
_COLOURS = dict(zip(MODES, ("#9aa7b0", "#b5483a", "#2f6f4f"), strict=True))

#: The points of a line: second and figure.
Points = Sequence[tuple[float, float]]


def draw_svg(rows: Sequence[Mapping[str, str]]) -> str:
    """Draw two charts: the site's p99 above, the number of waiting messages below."""
    top, bottom = _read_lines(rows, "p99"), _read_lines(rows, "lag")
    width, height = _LEFT + _WIDTH + 20, 2 * (_HEIGHT + _GAP) + 30
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            ' font-family="sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *_draw_chart(
                top, _GAP, "p99 of HTTP requests, ms (up to 1000)", most=1000.0
            ),
            *_draw_chart(bottom, 2 * _GAP + _HEIGHT, "messages that wait"),
            *_draw_legend(height - 10),
            "</svg>\n",
        ]
    )


def _read_lines(rows: Sequence[Mapping[str, str]], figure: str) -> dict[str, Points]:
    """Return one line for each mode: the medians of all rounds."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row[figure]:
            found[row["mode"]][float(row["second"])].append(float(row[figure]))
    return {
        mode: [(second, statistics.median(each)) for second, each in sorted(of.items())]
        for mode, of in found.items()
    }


def _draw_chart(
    lines: Mapping[str, Points], top: float, title: str, most: float | None = None
) -> list[str]:
    last = max(second for points in lines.values() for second, _ in points)
    most = most or max(figure for points in lines.values() for _, figure in points)
    bottom = top + _HEIGHT

    def join_points(points: Points) -> str:
        return " ".join(
            f"{_LEFT + second / last * _WIDTH:.0f},"
            f"{bottom - min(figure, most) / most * _HEIGHT:.0f}"
            for second, figure in points
        )

    return [
        f'<text x="8" y="{top - 10}" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{_LEFT},{top} V{bottom} H{_LEFT + _WIDTH}" fill="none"'
        ' stroke="#000"/>',
        f'<text x="{_LEFT - 6}" y="{top + 5}" text-anchor="end">{most:,.0f}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom + 5}" text-anchor="end">0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 16}" text-anchor="end">'
        f"{last:.0f} s</text>",
        *(
            f'<polyline points="{join_points(points)}" fill="none" stroke-width="2"'
            f' stroke="{_COLOURS[mode]}"/>'
            for mode, points in lines.items()
        ),
    ]


def _draw_legend(y: float) -> list[str]:
    return [
        f'<text x="{_LEFT + at * 190}" y="{y}" fill="{colour}">{escape(mode)}</text>'
        for at, (mode, colour) in enumerate(_COLOURS.items())
    ]


def main(figures: str, picture: str) -> None:
    with open(figures, newline="") as file:
        rows = list(csv.DictReader(file))
    pathlib.Path(picture).write_text(draw_svg(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
