"""Faults, provoked one after the other under load, and their effects on messages.

Run them with ``python -m tests.faults``; ``--help`` lists the options.
"""
