"""Stock: what there is, what is reserved, what the supplier brings."""

from __future__ import annotations

from . import consumers as consumers
from . import views as views
from .blueprint import bp

__all__ = ["bp"]
