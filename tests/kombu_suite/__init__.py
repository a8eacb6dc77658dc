"""kombu's own integration tests, run over our three transports.

``python -m tests.kombu_suite`` fetches the source distribution of the kombu that is
installed, which holds the tests, and runs them. The modules here are not named
``test_*``, so that a plain ``pytest`` leaves them out.
"""
