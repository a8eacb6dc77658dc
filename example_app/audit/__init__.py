"""Audit: a log of all messages of the shop."""

from __future__ import annotations

from . import consumers as consumers
from . import views as views
from .blueprint import bp

__all__ = ["bp"]
