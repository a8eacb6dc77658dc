"""The extensions, without an app: ``create_app`` initialises them."""

from __future__ import annotations

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase

from flask_qconsume import QConsume


class Base(DeclarativeBase):
    """What all models have in common."""


# Objects stay readable after their transaction, for the message that tells of them.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})
qconsume = QConsume()
