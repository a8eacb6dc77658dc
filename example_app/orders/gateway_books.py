"""Books of the simulated payment gateway, which outlive the processes of the shop.

A real gateway has them on machines of its own. Here they are a table beside the shop's.
"""

from __future__ import annotations

from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from ..extensions import db


class Charge(db.Model):
    """A charge of a card. Its key is the caller's, so that it happens once."""

    key: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[int]
    #: Number of requests with this key; only the first one has charged the card.
    requests: Mapped[int] = mapped_column(default=1)


def charge_once(key: str, amount: int) -> bool:
    """Charge a card unless the key has been charged, and return whether it had been."""
    again = (
        db.update(Charge)
        .where(Charge.key == key)
        .values(requests=Charge.requests + 1)
        .returning(Charge.key)
    )
    # A transaction of the gateway's own, apart from the session of the shop.
    with db.engine.begin() as connection:
        if connection.scalar(again) is not None:
            return True
        connection.execute(db.insert(Charge).values(key=key, amount=amount, requests=1))
        return False
