"""Arbitrary bytes for all code that reads foreign data.

A target is a function of bytes that raises if something is wrong; ``targets.py`` has
all of them. ``test_targets.py`` gives them, with the quick tests, their seeds (among
them what was ever found) and bytes by hypothesis. ``python -m tests.fuzz`` lets a
coverage-guided fuzzer look for more, for as long as one likes.
"""
