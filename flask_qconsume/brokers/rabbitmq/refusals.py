"""The refusals of RabbitMQ: which of them waiting cures, and what to do about each.

A refusal has a number, which several situations share, and a text, which also holds
names that users chose. A row is therefore found by the number, and by words of the
broker's own at the begin or the end of the text, where no name can stand: RabbitMQ
quotes names that come last. It shortens texts of more than 255 bytes; then the last row
of the number counts. Numbers and texts: https://www.rabbitmq.com/docs/channels#errors
and the sources of RabbitMQ 3.10 to 4.1. No I/O.
"""

from __future__ import annotations

import re
import typing as t

from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from ...errors import UnsupportedByBroker


class Refusal(t.NamedTuple):
    """One situation, its error, and what to do."""

    code: int
    error: type[BrokerError]
    advice: str
    #: A regular expression that the text holds; any text unless given.
    words: str = ""


#: The first row that fits counts.
REFUSALS = (
    # py-amqp itself, when the broker offers no way of logging in that it knows.
    Refusal(
        0,
        BrokerRefused,
        "Allow one of them on the broker ('auth_mechanisms'), or choose another one by"
        " 'login_method' in 'QCONSUME_TRANSPORT_OPTIONS'.",
        r"^Couldn't find appropriate auth mechanism ",
    ),
    Refusal(
        320,
        BrokerUnavailable,
        "The broker is stopping, or an operator closed the connection.",
    ),
    Refusal(
        403,
        BrokerRefused,
        "Check the user and the password; the user 'guest' can only log in from the"
        " broker's own host.",
        r"^Login was refused ",
    ),
    Refusal(
        403,
        BrokerUnavailable,
        "Another consumer has the queue to itself (an exclusive consumer). End that"
        " one, or wait for its end.",
        r" in exclusive use$",
    ),
    Refusal(
        403,
        BrokerRefused,
        "Use a name that does not begin with 'amq.'.",
        r" contains reserved prefix 'amq\.\*'$",
    ),
    Refusal(
        403,
        BrokerRefused,
        "Give the user this permission ('rabbitmqctl set_permissions').",
    ),
    Refusal(404, TopologyMismatch, "Run 'flask qconsume declare'.", r"^no "),
    Refusal(
        404,
        BrokerUnavailable,
        "The queue exists, but the broker cannot reach it now; see the broker's log if"
        " it stays so.",
    ),
    Refusal(
        405,
        BrokerUnavailable,
        "Another connection declared the queue as exclusive; it is free when that"
        " connection ends.",
    ),
    Refusal(
        406,
        TopologyMismatch,
        "Delete it on the broker once it is empty, use another name, set"
        " 'QCONSUME_QUEUE_TYPE' to its type, or give the consumer a kombu.Queue that"
        " describes it as it is.",
        r"^inequivalent arg ",
    ),
    Refusal(
        406,
        UnsupportedByBroker,
        "Change that in the kombu.Queue: the broker, or this type of queue, does not"
        " know it.",
        r"^invalid (arg|property|type) ",
    ),
    Refusal(
        406,
        BrokerRefused,
        "Delete queues that are not needed any more, or raise the virtual host's limit"
        " ('rabbitmqctl set_vhost_limits').",
        r": queue limit in vhost '.*' \(\d+\) is reached$",
    ),
    Refusal(
        406,
        BrokerUnavailable,
        "A message was in hand for longer than the broker allows, from its arrival"
        " until the end of its handler. Lower the consumer's 'prefetch' or 'timeout',"
        " or raise 'consumer_timeout' on the broker.",
        r"^delivery acknowledgement on channel ",
    ),
    Refusal(406, BrokerRefused, "Look up the reason in the broker's log."),
    Refusal(
        503,
        UnsupportedByBroker,
        "Does the exchange's type need a plugin that the broker has not enabled?",
        r"^(unknown|invalid) exchange type ",
    ),
    Refusal(
        530,
        BrokerUnavailable,
        "Close connections that are not needed, or raise the limit ('rabbitmqctl"
        " set_vhost_limits' and 'set_user_limits').",
        r" limit \(\d+\) is reached$"
        r"| (user limit of|negotiated channel_max) \(\d+\)$",
    ),
    Refusal(
        530,
        BrokerRefused,
        "Create the virtual host ('rabbitmqctl add_vhost'), or check its name at the"
        " end of 'QCONSUME_BROKER_URL'.",
        r"^vhost .* not found$",
    ),
    Refusal(
        530,
        BrokerRefused,
        "Correct it in 'QCONSUME_BROKER_URL' or 'QCONSUME_TRANSPORT_OPTIONS'.",
        r"^negotiated ",
    ),
    Refusal(
        530,
        BrokerRefused,
        "Give the user permissions in the virtual host ('rabbitmqctl"
        " set_permissions').",
    ),
    Refusal(540, UnsupportedByBroker, "This version of the broker does not have it."),
    Refusal(
        541,
        BrokerUnavailable,
        "Start the virtual host again by 'rabbitmqctl restart_vhost'.",
        r": vhost '.*' is down$",
    ),
)


def refusal_of(error: BaseException) -> Refusal | None:
    """The row of an error; ``None`` if it is no refusal, or no known one."""
    text = getattr(error, "reply_text", None)
    if not isinstance(text, str):
        return None
    code = getattr(error, "reply_code", None) or 0
    # "ACCESS_REFUSED - …": the number's name.
    words = re.sub(r"^[A-Z_]+ - ", "", text)
    return next((row for row in REFUSALS if _fits(row, code, words)), None)


def is_refused_as(error: BaseException, kind: type[BrokerError]) -> bool:
    """Whether the broker's refusal means this error."""
    row = refusal_of(error)
    return row is not None and row.error is kind


def lacks_exchange(error: BaseException, name: str) -> bool:
    """Whether the broker says that it has no exchange of that name."""
    said = getattr(error, "reply_text", None) or ""
    wanted = f"NOT_FOUND - no exchange '{name}' in vhost '"
    if said.endswith("..."):
        wanted = wanted[: len(said) - len("...")]
    return bool(said.startswith(wanted))


def _fits(row: Refusal, code: int, words: str) -> bool:
    return row.code == code and re.search(row.words, words, re.DOTALL) is not None
