"""Simulated payment gateway: slow, and sometimes without an answer."""

from __future__ import annotations

import random
import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

from .gateway_books import charge_once

#: Tokens of the cards, with their titles on the page.
CARDS = {
    "tok_visa": "Visa, accepted",
    "tok_expired": "Card that is declined",
    "tok_silent": "Bank that never answers",
}


class CardDeclined(Exception):
    """The bank has declined the card. A retry would not help."""


class GatewayTimeout(Exception):
    """The gateway has not answered in time. A retry may help."""


class Receipt(t.NamedTuple):
    """Answer of the gateway to a charge."""

    number: str
    #: True if an earlier request with the same key has charged the card.
    repeated: bool


@dataclass
class PaymentGateway:
    """Client of the gateway.

    :param seconds: Seconds until the gateway answers.
    :param timeouts: Share of requests without an answer, from 0 to 1.
    """

    seconds: float
    timeouts: float
    chance: random.Random = field(default_factory=random.Random)

    @classmethod
    def from_config(cls, config: t.Mapping[str, t.Any]) -> PaymentGateway:
        """Create a gateway from the keys ``SHOP_GATEWAY_…``."""
        return cls(
            seconds=config["SHOP_GATEWAY_SECONDS"],
            timeouts=config["SHOP_GATEWAY_TIMEOUTS"],
            chance=random.Random(config["SHOP_GATEWAY_SEED"]),
        )

    def charge(self, card: str, amount: int, *, key: str) -> Receipt:
        """Charge a card.

        The card is charged before the answer comes. If this process dies in between,
        nothing here knows of the charge, and the message is delivered again.

        :param key: Idempotency key: repeated calls with the same key charge once.
        :raises CardDeclined: if the bank declines the card.
        :raises GatewayTimeout: if the gateway does not answer; it has not charged.
        """
        if card == "tok_silent" or self.chance.random() < self.timeouts:
            time.sleep(self.seconds)
            raise GatewayTimeout("the payment gateway did not answer in time")
        if card != "tok_visa":
            time.sleep(self.seconds)
            raise CardDeclined("the bank declined the card")
        repeated = charge_once(key, amount)
        time.sleep(self.seconds)
        return Receipt(f"R-{key}-{amount}", repeated)

    def refund(self, receipt: str) -> None:
        """Refund a charge. Repeated calls refund it once.

        :raises GatewayTimeout: if the gateway does not answer.
        """
        time.sleep(self.seconds)
        if self.chance.random() < self.timeouts:
            raise GatewayTimeout("the payment gateway did not answer in time")
