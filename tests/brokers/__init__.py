"""The contract of the brokers: one suite of cases, run on every broker.

``contract.py``         the cases: what every broker must do, or say that it cannot
``under_test.py``       the brokers under test, and their servers
``context.py``          what a case is given: apps, links and messages on one broker
``holding_process.py``  another process, which holds messages and is killed
``test_contract.py``    each case on each broker
``report.py``           the table of passed and excluded cases, at the end of a run
"""

import pytest

pytest.register_assert_rewrite("tests.brokers.contract", "tests.brokers.context")
