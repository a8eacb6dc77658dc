"""Benchmarks of flask_qconsume and other libraries on one machine.

``python -m benchmarks --help`` lists the options; ``requirements.txt`` has the needed
packages. Each contender is a file in ``contenders/``, and runs in its own process.
"""
