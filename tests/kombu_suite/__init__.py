"""kombu's own integration tests, run over our three transports.

``python -m tests.kombu_suite`` downloads the installed kombu's source distribution,
which holds the tests, and runs them. The modules are not named ``test_*``, so that a
plain ``pytest`` does not collect them.
"""
