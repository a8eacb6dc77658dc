"""Installations as users make them, with nothing else there: ``tox -e installs``."""
