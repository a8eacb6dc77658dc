"""A directive that shows what runs of the fault suite have found.

``qconsume-faults``        a table for each broker, from the records in ``docs/_faults``

The records are what ``python -m tests.faults`` wrote. Nothing is judged here and no
figure stands in the page itself, so that new records make a new page.
"""

from __future__ import annotations

import json
import pathlib
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

from from_code import FromCode
from from_code import escaped
from from_code import table
from sphinx.application import Sphinx

RECORDS = pathlib.Path(__file__).parents[1] / "_faults"

Record = dict[str, t.Any]

HEADS = (
    "Fault",
    "Faults",
    "Messages",
    "Lost",
    "Handled again",
    "Longest silence",
    "Goes on after",
)
WIDTHS = (6, 2, 3, 2, 3, 3, 3)


class Faults(FromCode):
    """All records: what they come to together, then each broker's own."""

    def lines(self) -> Iterator[str]:
        found = records()
        yield summary(found)
        yield ""
        for record in found:
            yield from section(record)


def records() -> list[Record]:
    """The records that are there, by the name of their broker."""
    paths = sorted(RECORDS.glob("*.json"))
    return [json.loads(path.read_text("utf-8")) for path in paths]


def summary(found: list[Record]) -> str:
    """What all of them come to, in a paragraph."""
    faults = [fault for record in found for fault in record["faults"]]
    messages = sum(record["messages"] for record in found)
    told = sum(fault["lost"] for fault in faults if fault["may_lose"])
    lost = sum(record["lost"] for record in found) - told
    return (
        f"**{len(faults):,} faults and {messages:,} messages on {len(found)} set-ups of"
        f" brokers: {lost} messages lost**"
        + (f", and {told} by faults that are known to lose some." if told else ".")
    )


def section(record: Record) -> Iterator[str]:
    """One broker: what was run there, and a row for each kind of fault."""
    yield record["title"]
    yield "-" * len(record["title"])
    yield ""
    yield paragraph(record)
    yield ""
    kept = [fault for fault in record["faults"] if not fault["may_lose"]]
    if kept:
        yield from table(HEADS, rows(kept), WIDTHS)
    told = [fault for fault in record["faults"] if fault["may_lose"]]
    if told:
        yield "Faults that are known to lose messages (:doc:`concepts/guarantees`):"
        yield ""
        yield from table(HEADS, rows(told), WIDTHS)
    versions = ", ".join(f"{name} {v}" for name, v in record["versions"].items())
    yield f"Again: ``{record['command']}``. {escaped(versions)}."
    yield ""


def paragraph(record: Record) -> str:
    """What a run was, in words."""
    order = record["reordered"]
    return (
        f"{record['messages']:,} messages were confirmed and {record['refused']:,} not,"
        f" in {record['seconds'] / 60:.0f} minutes, with {record['workers']} workers."
        f" {record['duplicated']:,} times a message was handled again."
        + (
            f" {order} were handled out of the order of their key."
            * (order is not None)
        )
        + (f" {record['dead_expected']} were told to become dead letters, and did.")
        * bool(record["dead_expected"])
    )


def rows(faults: Iterable[Record]) -> Iterator[tuple[str, ...]]:
    """One row for each name, by the alphabet."""
    by_name: dict[str, list[Record]] = {}
    for fault in faults:
        by_name.setdefault(fault["name"], []).append(fault)
    for name, found in sorted(by_name.items()):
        yield (
            escaped(name),
            str(len(found)),
            f"{sum(each['messages'] for each in found):,}",
            str(sum(each["lost"] for each in found)),
            f"{sum(each['duplicated'] for each in found):,}",
            f"{max(each['silence'] for each in found):.1f} s",
            slowest(found),
        )


def slowest(found: Iterable[Record]) -> str:
    """How long it took at most until all went on."""
    times = [each["resumed"] for each in found]
    return "never" if None in times else f"{max(times):.1f} s"


def setup(app: Sphinx) -> dict[str, t.Any]:
    app.add_directive("qconsume-faults", Faults)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
