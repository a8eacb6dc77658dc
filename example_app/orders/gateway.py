"""A payment gateway as one knows them: slow, and now and then it does not answer."""

from __future__ import annotations

import random
import time
import typing as t
from dataclasses import dataclass
from dataclasses import field

#: The cards that can be paid with, and what the page calls them.
CARDS = {
    "tok_visa": "Visa, in order",
    "tok_expired": "a card that is declined",
    "tok_silent": "a bank that never answers",
}


class CardDeclined(Exception):
    """The bank says no; asking again would not change its mind."""


class GatewayTimeout(Exception):
    """No answer in time; asking again may help."""


@dataclass
class PaymentGateway:
    """The connection to the gateway.

    :param seconds: How long it takes to answer.
    :param timeouts: How often it does not, from 0 to 1.
    """

    seconds: float
    timeouts: float
    chance: random.Random = field(default_factory=random.Random)

    @classmethod
    def from_config(cls, config: t.Mapping[str, t.Any]) -> PaymentGateway:
        """The gateway of the shop's ``SHOP_GATEWAY_…`` keys."""
        return cls(
            seconds=config["SHOP_GATEWAY_SECONDS"],
            timeouts=config["SHOP_GATEWAY_TIMEOUTS"],
            chance=random.Random(config["SHOP_GATEWAY_SEED"]),
        )

    def charge(self, card: str, amount: int, *, key: str) -> str:
        """Take money from a card; return the receipt's number.

        :param key: Charged once, however often it is asked for with the same key, as
            gateways promise it: a message may come twice.
        :raises CardDeclined: if the bank says no.
        :raises GatewayTimeout: if there is no answer.
        """
        time.sleep(self.seconds)
        if card == "tok_silent" or self.chance.random() < self.timeouts:
            raise GatewayTimeout("the payment gateway did not answer in time")
        if card != "tok_visa":
            raise CardDeclined("the bank declined the card")
        return f"R-{key}-{amount}"

    def refund(self, receipt: str) -> None:
        """Give back what was charged; asked for twice, it is given back once.

        :raises GatewayTimeout: if there is no answer.
        """
        time.sleep(self.seconds)
        if self.chance.random() < self.timeouts:
            raise GatewayTimeout("the payment gateway did not answer in time")
