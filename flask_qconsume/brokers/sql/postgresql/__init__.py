"""The broker for ``postgresql://``: tables of a PostgreSQL database."""

from .broker import PostgreSQL

__all__ = ["PostgreSQL"]
