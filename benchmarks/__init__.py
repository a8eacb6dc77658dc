"""Benchmarks: us and others, side by side on one machine.

``python -m benchmarks --help`` says how; ``requirements.txt`` lists what it needs. Each
contender is a file in ``contenders/``, and runs in a process of its own.
"""
