"""Directives that write parts of the reference from the code itself.

``qconsume-settings``      the table of configuration keys
``qconsume-brokers``       what each broker can do and what it promises
``qconsume-commands``      the commands and their options
``qconsume-signals``       the signals
``qconsume-metrics``       the metrics, by kind
``qconsume-buckets``       the buckets of the histograms
``qconsume-refusals``      what RabbitMQ refuses
``qconsume-kafka-refusals``  what Kafka refuses
``qconsume-traits``        what types and arguments of given queues change

Each makes reStructuredText of what it finds, so that all of it can be linked to: a key
by ``:setting:`QCONSUME_TIMEOUT```, an option by ``:option:``.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable
from collections.abc import Iterator

import click
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

from flask_qconsume import settings
from flask_qconsume.broker import given_queues
from flask_qconsume.broker.capabilities import Capabilities
from flask_qconsume.broker.urls import list_brokers
from flask_qconsume.brokers.kafka.client import refusals as kafka_refusals
from flask_qconsume.brokers.rabbitmq import errors as rabbitmq_errors
from flask_qconsume.cli import cli
from flask_qconsume.cli.durations import format_duration
from flask_qconsume.cli.lazy_group import LazyGroup
from flask_qconsume.handling import signals
from flask_qconsume.observing import metric_table

KEY = re.compile(r"'?\b(QCONSUME_[A-Z_]+)\b'?")
#: The names at the head of an option's line of help; its value follows.
NAMES = re.compile(r"^(?:--?[\w-]+(?:, | / | |$))+")
COMMAND = re.compile(r"'(flask qconsume [a-z-]+)'")


class FromCode(SphinxDirective):
    """A directive that stands for lines of reStructuredText."""

    def run(self) -> list[nodes.Node]:
        holder = nodes.container()
        holder.document = self.state.document
        lines = StringList(list(self.lines()), source=self.get_source_info()[0])
        nested_parse_with_titles(self.state, lines, holder)
        return holder.children

    def lines(self) -> Iterable[str]:
        raise NotImplementedError


class Settings(FromCode):
    """Every row of ``settings.TABLE``: a table of them all, then one by one."""

    def lines(self) -> Iterator[str]:
        rows = [(f":setting:`{s.key}`", s.kind, default(s)) for s in settings.TABLE]
        yield from table(("Key", "What it is", "Default"), rows, (3, 3, 4))
        for setting in settings.TABLE:
            yield f".. setting:: {setting.key}"
            yield ""
            yield f"   {escaped(setting.doc)}"
            yield ""
            yield f"   *{setting.kind}*; default: {default(setting)}"
            yield ""


class Brokers(FromCode):
    """``Broker.capabilities``: yes or no for all, then what each does in words."""

    def lines(self) -> Iterator[str]:
        found = capabilities()
        columns = grouped(found)
        yield from table(
            ("", *columns),
            rows([group[0] for group in columns.values()]),
            (9, *(2 for _ in columns)),
            stub=True,
            kind="capabilities",
        )
        for one in found:
            yield f".. rubric:: {one.title}"
            yield ""
            yield escaped(one.guarantee)
            yield ""
            for fact in one.facts:
                if fact.in_words:
                    yield f":{fact.label}: {escaped(fact.value)}."
            yield ""


class Commands(FromCode):
    """Every command of ``flask qconsume``, with its arguments and options."""

    def lines(self) -> Iterator[str]:
        return command_lines(cli, "flask qconsume", click.Context(cli))


class Signals(FromCode):
    """Every signal, with what its receivers are given."""

    def lines(self) -> Iterator[str]:
        analyzer = ModuleAnalyzer.for_module(signals.__name__)
        for (_, name), doc in analyzer.find_attr_docs().items():
            yield f".. py:data:: flask_qconsume.signals.{name}"
            yield ""
            yield from (f"   {line}" for line in doc)
            yield ""


class Metrics(FromCode):
    """Every row of ``metric_table.TABLE``, in a table for each kind."""

    def lines(self) -> Iterator[str]:
        for kind, of_process, title in (
            ("counter", False, "Counters"),
            ("histogram", False, "Histograms"),
            ("gauge", True, "Gauges of each worker process"),
            ("gauge", False, "Gauges of each queue"),
        ):
            yield f".. rubric:: {title}"
            yield ""
            if of_process:
                yield "With several processes, they have the label ``pid``, too."
                yield ""
            rows = (
                (
                    f"``{metric.name}``",
                    ", ".join(f"``{name}``" for name in metric.labels),
                    escaped(metric.help),
                )
                for metric in metric_table.TABLE
                if (metric.kind, metric.per_process) == (kind, of_process)
            )
            yield from table(("Name", "Labels", "What it is"), rows, (6, 3, 8))


class Buckets(FromCode):
    """The bounds of each histogram."""

    def lines(self) -> Iterator[str]:
        rows = (
            (f"``{metric.name}``", ", ".join(f"{each:g}" for each in metric.buckets))
            for metric in metric_table.TABLE
            if metric.buckets
        )
        yield from table(("Histogram", "Upper bounds in seconds"), rows, (2, 5))


def capabilities() -> list[Capabilities]:
    """Those of every broker that a URL can mean, each once."""
    return [record for broker in list_brokers() for record in broker.all_capabilities()]


def grouped(found: list[Capabilities]) -> dict[str, list[Capabilities]]:
    """Those that the table cannot tell apart, by a title of them all."""
    groups: dict[tuple[str, ...], list[Capabilities]] = {}
    for one in found:
        cells = tuple(said(fact.value) for fact in one.facts if not fact.in_words)
        groups.setdefault(cells, []).append(one)
    return {" and ".join(one.title for one in some): some for some in groups.values()}


def rows(found: list[Capabilities]) -> Iterator[Iterable[str]]:
    """What can be said in a word, for all of them."""
    for facts in zip(*(one.facts for one in found), strict=True):
        if not facts[0].in_words:
            yield facts[0].label, *(said(fact.value) for fact in facts)


def said(value: t.Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"``{one}``" for one in value)
    return "any" if value == float("inf") else format_duration(value)


def default(setting: settings.Setting) -> str:
    value = setting.default
    if value is None:
        return "none; it must be set" if setting.name == "broker_url" else "unset"
    if isinstance(value, tuple):
        return ", ".join(f"``{item}``" for item in value)
    if setting.kind == "seconds" and value >= 600:
        return f"``{value:g}``, {format_duration(value)}"
    return f"``{value:g}``" if isinstance(value, float) else f"``{value!r}``"


def command_lines(
    command: click.Command, path: str, context: click.Context
) -> Iterator[str]:
    """One command, and those below it if it is a group."""
    group = isinstance(command, click.Group)
    if not group:
        yield from section(path)
        yield ".. code-block:: text"
        yield ""
        pieces = " ".join(command.collect_usage_pieces(context))
        yield f"   {path} {pieces}"
        yield ""
    elif path != "flask qconsume":
        yield from section(path)
    if path != "flask qconsume":
        yield from paragraphs(command.help or "")
        yield f".. program:: {path}"
        yield ""
    for parameter in command.params:
        yield from option_lines(parameter, context)
    if isinstance(command, click.Group):
        # In the order in which they were added, the most important first.
        for name in (
            command.lazy if isinstance(command, LazyGroup) else command.commands
        ):
            child = command.get_command(context, name)
            if child is not None and not child.hidden:
                inner = click.Context(child, info_name=name, parent=context)
                yield from command_lines(child, f"{path} {name}", inner)


class Refusals(FromCode):
    """One row for each situation."""

    def lines(self) -> Iterator[str]:
        rows = (
            (
                f"{row.codes[0] or 'none'}"
                + (f", ``{row.pattern.strip()}``" if row.pattern else ""),
                f":exc:`~flask_qconsume.{row.error.__name__}`",
                escaped(row.advice),
            )
            for row in rabbitmq_errors.REFUSALS
        )
        yield from table(("Number, and words", "Error", "What to do"), rows, (4, 3, 6))


class KafkaRefusals(FromCode):
    """One row for each meaning."""

    def lines(self) -> Iterator[str]:
        rows = (
            (
                ", ".join(f"``{name}``" for name in row.codes),
                f":exc:`~flask_qconsume.{row.error.__name__}`",
                escaped(row.advice),
            )
            for row in kafka_refusals.REFUSALS
        )
        yield from table(("Codes", "Error", "What to do"), rows, (5, 3, 6))


class Traits(FromCode):
    """One row for each."""

    def lines(self) -> Iterator[str]:
        rows = (
            (
                escaped(trait.name),
                escaped(f"{trait.effect}."),
                "refused" if trait.instead else "honoured",
                "left out" if trait.neutral and not trait.instead else "refused",
            )
            for trait in given_queues.TRAITS
        )
        heads = ("What it has", "What follows", "On RabbitMQ", "On others")
        yield from table(heads, rows, (4, 8, 2, 2))


def option_lines(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    record = parameter.get_help_record(context)
    if not isinstance(parameter, click.Option) or record is None:
        return
    if parameter.is_eager and "help" in parameter.opts[0]:
        return
    value = NAMES.sub("", record[0])
    shown = f" <{value.lower()}>" if value else ""
    names = [*parameter.opts, *parameter.secondary_opts]
    yield f".. option:: {', '.join(names)}{shown}"
    yield ""
    yield f"   {escaped(record[1])}"
    yield ""


def section(path: str) -> Iterator[str]:
    name = path.removeprefix("flask qconsume ")
    yield f".. _command-{name.replace(' ', '-')}:"
    yield ""
    yield f"``{path}``"
    yield "-" * (len(path) + 4)
    yield ""


def paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.replace("\b\n", "").strip().split("\n\n"):
        yield escaped(" ".join(paragraph.split()))
        yield ""


def escaped(text: str) -> str:
    """Plain text as reStructuredText; names of keys and commands become links."""
    text = re.sub(r"([*`|\\]|(?<=\w)_(?=\W|$))", r"\\\1", text)
    text = COMMAND.sub(r"``\1``", text)
    return KEY.sub(linked, text)


def linked(match: re.Match[str]) -> str:
    known = {setting.key for setting in settings.TABLE}
    key = match.group(1)
    return f":setting:`{key}`" if key in known else f"``{key}``"


def table(
    heads: Iterable[str],
    rows: Iterable[Iterable[str]],
    widths: Iterable[int],
    *,
    stub: bool = False,
    kind: str = "",
) -> Iterator[str]:
    yield ".. list-table::"
    if kind:
        yield f"   :class: {kind}"
    yield "   :header-rows: 1"
    yield f"   :stub-columns: {int(stub)}"
    yield f"   :widths: {' '.join(map(str, widths))}"
    yield ""
    for row in (heads, *rows):
        for index, cell in enumerate(row):
            yield f"   {'*' if index == 0 else ' '} - {cell}"
    yield ""


def setup(app: Sphinx) -> dict[str, t.Any]:
    app.add_object_type("setting", "setting", indextemplate="pair: %s; configuration")
    app.add_directive("qconsume-settings", Settings)
    app.add_directive("qconsume-brokers", Brokers)
    app.add_directive("qconsume-commands", Commands)
    app.add_directive("qconsume-signals", Signals)
    app.add_directive("qconsume-metrics", Metrics)
    app.add_directive("qconsume-buckets", Buckets)
    app.add_directive("qconsume-refusals", Refusals)
    app.add_directive("qconsume-kafka-refusals", KafkaRefusals)
    app.add_directive("qconsume-traits", Traits)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
