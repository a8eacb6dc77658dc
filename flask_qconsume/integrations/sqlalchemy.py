"""Prepare the app's own SQLite database for handlers that write at the same time.

::

    from flask_qconsume.integrations.sqlalchemy import prepare_engine

    with app.app_context():
        prepare_engine(db.engine)

Needs SQLAlchemy, which Flask-SQLAlchemy or the extra ``sql`` installs.
"""

from __future__ import annotations

from ..databases.prepared_engine import Synchronous
from ..databases.prepared_engine import is_prepared
from ..databases.prepared_engine import prepare_engine

__all__ = ["Synchronous", "is_prepared", "prepare_engine"]
