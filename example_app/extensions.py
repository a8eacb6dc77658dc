"""Extensions, which ``create_app`` initialises."""

from __future__ import annotations

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase

from flask_qconsume import QConsume


class Base(DeclarativeBase):
    """Base class of all models."""


# Objects stay readable after their transaction, to be published.
db = SQLAlchemy(model_class=Base, session_options={"expire_on_commit": False})
qconsume = QConsume()
