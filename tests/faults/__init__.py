"""Faults on purpose, one after the other under load, and what they did to us.

Started by one command: ``python -m tests.faults --help``.
"""
