"""One suite of cases for every broker, and what each broker can be held to.

``contract.py``       the cases: what every broker must do, or say that it cannot
``places.py``         the brokers that are held to them, and their servers
``stage.py``          what a case is given: apps, links and messages on one broker
``holder.py``         another process, which holds messages and is killed
``test_contract.py``  each case on each broker
``report.py``         the table of what passed and what is excluded, at the end of a run
"""

import pytest

pytest.register_assert_rewrite("tests.brokers.contract", "tests.brokers.stage")
