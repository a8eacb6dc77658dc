"""Tables of figures, as text that is also valid reStructuredText."""

from __future__ import annotations

from collections.abc import Sequence

from .contenders import title
from .rounds import Summary

HEAD = ("contender", "msg/s", "spread", "times", "µs CPU", "MiB", "left")


def render(summaries: Sequence[Summary], reference: str) -> str:
    """Return a table, the fastest first; "times" is relative to the reference."""
    return format_rows([HEAD, *_rows(summaries, reference)])


def format_rows(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    line = "  ".join("=" * width for width in widths)
    texts = ["  ".join(map(_padded, row, widths)).rstrip() for row in rows]
    return "\n".join([line, texts[0], line, *texts[1:], line])


def _padded(text: str, width: int) -> str:
    return text.ljust(width)


def _rows(summaries: Sequence[Summary], reference: str) -> list[tuple[str, ...]]:
    ordered = sorted(summaries, key=lambda s: s.median("rate"), reverse=True)
    ours = [s.median("rate") for s in summaries if s.contender == reference]
    return [_row(summary, ours[0] if ours else None) for summary in ordered]


def _row(summary: Summary, ours: float | None) -> tuple[str, ...]:
    rate = summary.median("rate")
    low, high = summary.spread
    return (
        title(summary.contender),
        f"{rate:,.0f}",
        f"{low:,.0f} – {high:,.0f}",
        "–" if ours is None else f"{ours / rate:.2f}",
        f"{summary.median('cpu'):.1f}",
        f"{summary.median('memory'):.0f}",
        str(summary.left),
    )
