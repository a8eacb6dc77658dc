"""Examples of hypothesis: the same in every run, with no limit of time for each.

By default hypothesis fails an example that takes 200 ms, which a busy machine exceeds.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck
from hypothesis import settings

settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("steady")
