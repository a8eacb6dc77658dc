"""The table of crash cases at the end of a run.

A figure says how often the message was completed ("1×"), or how many dead letters it
has ("1× dead").
"""

from __future__ import annotations

import typing as t

import pytest

#: The property of a test with the figure of its case.
FIGURE = "crash figure"

#: The property of a test report with the case and the broker.
_CASE = "crash case"

_TEST = "test_no_message_is_lost_wherever_its_process_dies"

Found = dict[tuple[str, str], str]

_found = pytest.StashKey[Found]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_found] = {}
    config.pluginmanager.register(Recorder(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that name their broker in a parameter."""
    for item in items:
        if _is_crash_case(item):
            params = item.callspec.params  # type: ignore[attr-defined]
            item.user_properties.append(
                (_CASE, (params["case"].name, params["broker"]))
            )
            item.add_marker("broker")


class Recorder:
    """Recorder of the cases' figures, also from pytest-xdist's processes."""

    def __init__(self, config: pytest.Config) -> None:
        self._found = config.stash[_found]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if _CASE not in properties:
            return
        if report.when == "call" or report.outcome != "passed":
            name, broker = t.cast(tuple[str, str], properties[_CASE])
            figure = properties.get(FIGURE, report.outcome)
            passed = report.outcome == "passed"
            shown = figure if passed else f"{report.outcome} {figure}"
            self._found[name, broker] = str(shown)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    found = config.stash[_found]
    if found:
        terminalreporter.section(
            "points where a process died, and how often the message was handled"
        )
        for line in _format_table(found):
            terminalreporter.write_line(line)


def _is_crash_case(item: pytest.Item) -> bool:
    return getattr(item, "originalname", "") == _TEST


def _format_table(found: Found) -> list[str]:
    cases = list(dict.fromkeys(case for case, _ in found))
    brokers = list(dict.fromkeys(broker for _, broker in found))
    width = max(map(len, cases))
    column = max(8, *map(len, brokers))
    lines = ["  ".join((f"{'':<{width}}", *(f"{name:<{column}}" for name in brokers)))]
    for case in cases:
        cells = (f"{found.get((case, broker), '—'):<{column}}" for broker in brokers)
        lines.append("  ".join((f"{case:<{width}}", *cells)).rstrip())
    return lines
