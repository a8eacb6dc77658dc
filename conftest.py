"""What every test of the repository shares; the parts are in ``tests/harness``."""

from __future__ import annotations

pytest_plugins = [
    "tests.harness.patched",
    "tests.harness.deadlines",
    "tests.harness.examples",
    "tests.harness.leaks",
    "tests.harness.processes",
    "tests.servers.fixtures",
    "tests.brokers.report",
    "tests.faults.crash_report",
]
