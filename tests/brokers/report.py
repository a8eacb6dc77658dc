"""The outcome of each case on each broker, printed at the end of the run.

``pytest tests/brokers --contract-table`` prints the table of cases by brokers. Without
the option, a run with cases of the contract prints a few lines: which cases are
excluded, and by which missing capability.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

import pytest

#: Prefix of the reason of an excluded case, which tells it from a case that is skipped
#: because its broker is not installed.
EXCLUDED = "excluded: "

_TEST = "test_contract"
#: The text of each outcome in the table.
_SIGNS = {"passed": "yes", "excluded": "—", "failed": "FAILED", "not run": "not run"}

Outcomes = dict[str, dict[str, tuple[str, str]]]

_outcomes = pytest.StashKey[Outcomes]()
_begun = pytest.StashKey[list[tuple[str, str]]]()
#: The property of a test report with the case and the broker. pytest-xdist's processes
#: send properties, unlike attributes.
_PAIR = "case of the contract"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--contract-table",
        action="store_true",
        help="print the outcome of each case of the contract on each broker",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_outcomes] = defaultdict(dict)
    config.stash[_begun] = []
    config.pluginmanager.register(Recorder(config))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (pair := _find_pair(item)) is not None:
            item.user_properties.append((_PAIR, pair))
            item.add_marker("broker") if pair[1] != "memory" else None


class Recorder:
    """Recorder of the contract's outcomes, also from pytest-xdist's processes."""

    def __init__(self, config: pytest.Config) -> None:
        self._stash = config.stash

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        pair = dict(report.user_properties).get(_PAIR)
        if pair is None:
            return
        case, broker = t.cast(tuple[str, str], pair)
        if report.when == "setup":
            self._stash[_begun].append((case, broker))
        if report.when == "call" or report.outcome != "passed":
            self._stash[_outcomes][case][broker] = _read_outcome(report)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    wanted = config.stash[_begun]
    if not wanted:
        return
    found = config.stash[_outcomes]
    lines = _format_summary(wanted, found)
    if config.getoption("--contract-table"):
        lines = [*_format_table(wanted, found), "", *lines]
    terminalreporter.section("the contract of the brokers")
    for line in lines:
        terminalreporter.write_line(line)


def _find_pair(item: pytest.Item) -> tuple[str, str] | None:
    """Return the case and the broker of a test, if it belongs to the contract."""
    if getattr(item, "originalname", "") != _TEST:
        return None
    params = item.callspec.params  # type: ignore[attr-defined]
    return params["case"], params["broker"]


def _read_outcome(report: pytest.TestReport) -> tuple[str, str]:
    """Return the outcome of a test, and its reason."""
    if report.outcome != "skipped":
        return report.outcome, ""
    reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else ""
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith(EXCLUDED):
        return "excluded", reason.removeprefix(EXCLUDED)
    return "not run", reason


def _look_up(found: Outcomes, case: str, broker: str) -> tuple[str, str]:
    return found.get(case, {}).get(broker, ("not run", ""))


def _format_summary(wanted: list[tuple[str, str]], found: Outcomes) -> list[str]:
    counts = dict.fromkeys(_SIGNS, 0)
    excluded: dict[str, list[str]] = defaultdict(list)
    for case, broker in wanted:
        outcome, why = _look_up(found, case, broker)
        counts[outcome] += 1
        if outcome == "excluded":
            excluded[why].append(case)
    cases = len({case for case, _ in wanted})
    brokers = len({broker for _, broker in wanted})
    counted = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    return [
        *(f"excluded: {why}: {', '.join(names)}" for why, names in excluded.items()),
        f"{cases} cases, {brokers} brokers, {len(wanted)} pairs: {counted}",
    ]


def _format_table(wanted: list[tuple[str, str]], found: Outcomes) -> list[str]:
    brokers = list(dict.fromkeys(broker for _, broker in wanted))
    cases = list(dict.fromkeys(case for case, _ in wanted))
    width = max(map(len, cases))
    column = max(map(len, [*brokers, *_SIGNS.values()]))
    lines = [" ".join((f"{'':<{width}}", *(f"{name:<{column}}" for name in brokers)))]
    for case in cases:
        signs = (_SIGNS[_look_up(found, case, broker)[0]] for broker in brokers)
        lines.append(" ".join((f"{case:<{width}}", *(f"{s:<{column}}" for s in signs))))
    return lines
