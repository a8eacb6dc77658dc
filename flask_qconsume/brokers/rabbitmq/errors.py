"""Translation of RabbitMQ's errors to those of this package, with advice. No I/O.

A refusal of RabbitMQ has a number, which several situations share, and a text, which
also holds names that users chose. So a row of the table is found by the number, and by
RabbitMQ's own words at the beginning or the end of the text. No name can be there,
because RabbitMQ puts names at the end into quotes. RabbitMQ cuts texts of more than 255
bytes; the last row of a number usually matches any text, also a cut one. Numbers and
texts: https://www.rabbitmq.com/docs/channels#errors and the sources of RabbitMQ 3.10 to
4.1.
"""

from __future__ import annotations

import re

import amqp.exceptions

from ...broker.refusal_table import Refusal
from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import TopologyMismatch
from ...errors import UnsupportedByBroker
from ...text import escape

#: Errors of py-amqp on a connection that is lost or in use: ``AssertionError`` is
#: gevent's ``ConcurrentObjectUseError``, ``AttributeError`` comes from objects that
#: another greenlet tore down meanwhile, ``ValueError`` from a closed TLS socket.
LOST = (
    OSError,
    amqp.exceptions.AMQPError,
    amqp.exceptions.MessageNacked,
    AssertionError,
    AttributeError,
    ValueError,
)

#: The first row that matches counts.
REFUSALS: tuple[Refusal[int], ...] = (
    # Raised by py-amqp itself: it knows none of the login methods that the broker has.
    Refusal(
        (0,),
        BrokerRefused,
        "Allow one of these login methods on the broker ('auth_mechanisms'), or choose"
        " another one by 'login_method' in 'QCONSUME_TRANSPORT_OPTIONS'.",
        r"^Couldn't find appropriate auth mechanism ",
    ),
    Refusal(
        (320,),
        BrokerUnavailable,
        "The broker is stopping, or an operator closed the connection.",
    ),
    Refusal(
        (403,),
        BrokerRefused,
        "Check the user and the password; the user 'guest' can only log in from the"
        " broker's own host.",
        r"^Login was refused ",
    ),
    Refusal(
        (403,),
        BrokerUnavailable,
        "Another consumer has the queue to itself (an exclusive consumer). End that"
        " consumer, or wait until it ends.",
        r" in exclusive use$",
    ),
    Refusal(
        (403,),
        BrokerRefused,
        "Use a name that does not begin with 'amq.'.",
        r" contains reserved prefix 'amq\.\*'$",
    ),
    Refusal(
        (403,),
        BrokerRefused,
        "Give the user this permission ('rabbitmqctl set_permissions').",
    ),
    Refusal((404,), TopologyMismatch, "Run 'flask qconsume declare'.", r"^no "),
    Refusal(
        (404,),
        BrokerUnavailable,
        "The queue exists, but the broker cannot reach it now. If that lasts, look at"
        " the broker's log.",
    ),
    Refusal(
        (405,),
        BrokerUnavailable,
        "Another connection declared the queue as exclusive; it is free when that"
        " connection ends.",
    ),
    Refusal(
        (406,),
        TopologyMismatch,
        "Delete it on the broker once it is empty, use another name, set"
        " 'QCONSUME_QUEUE_TYPE' to its type, or give the consumer a kombu.Queue that"
        " describes it as it is.",
        r"^inequivalent arg ",
    ),
    Refusal(
        (406,),
        UnsupportedByBroker,
        "Change that in the kombu.Queue: the broker, or this type of queue, does not"
        " know it.",
        r"^invalid (arg|property|type) ",
    ),
    Refusal(
        (406,),
        BrokerRefused,
        "Delete queues that are not needed any more, or raise the virtual host's limit"
        " ('rabbitmqctl set_vhost_limits').",
        r": queue limit in vhost '.*' \(\d+\) is reached$",
    ),
    Refusal(
        (406,),
        BrokerUnavailable,
        "A message was in hand for longer than the broker allows, from its arrival"
        " until the end of its handler. Lower the consumer's 'prefetch' or 'timeout',"
        " or raise 'consumer_timeout' on the broker.",
        r"^delivery acknowledgement on channel ",
    ),
    Refusal((406,), BrokerRefused, "Look up the reason in the broker's log."),
    Refusal(
        (503,),
        UnsupportedByBroker,
        "Check whether the exchange's type needs a plugin that is not enabled on the"
        " broker.",
        r"^(unknown|invalid) exchange type ",
    ),
    Refusal(
        (530,),
        BrokerUnavailable,
        "Close connections that are not needed, or raise the limit ('rabbitmqctl"
        " set_vhost_limits' and 'set_user_limits').",
        r" limit \(\d+\) is reached$"
        r"| (user limit of|negotiated channel_max) \(\d+\)$",
    ),
    Refusal(
        (530,),
        BrokerRefused,
        "Create the virtual host ('rabbitmqctl add_vhost'), or check its name at the"
        " end of 'QCONSUME_BROKER_URL'.",
        r"^vhost .* not found$",
    ),
    Refusal(
        (530,),
        BrokerRefused,
        "Correct it in 'QCONSUME_BROKER_URL' or 'QCONSUME_TRANSPORT_OPTIONS'.",
        r"^negotiated ",
    ),
    Refusal(
        (530,),
        BrokerRefused,
        "Give the user permissions in the virtual host ('rabbitmqctl"
        " set_permissions').",
    ),
    Refusal(
        (540,), UnsupportedByBroker, "This version of the broker does not support that."
    ),
    Refusal(
        (541,),
        BrokerUnavailable,
        "Start the virtual host again by 'rabbitmqctl restart_vhost'.",
        r": vhost '.*' is down$",
    ),
)


def translate_error(error: BaseException, doing: str) -> BrokerError:
    """Convert an error of RabbitMQ or its client to a :class:`BrokerError`.

    :param doing: The operation that failed; the new text begins with it.
    """
    if isinstance(error, BrokerError):
        return error
    refusal = find_refusal(error)
    kind = BrokerUnavailable if refusal is None else refusal.error
    return kind(f"{doing}: {explain_error(error)}")


def explain_error(error: BaseException) -> str:
    """Return the text of an error, and the advice that :data:`REFUSALS` has for it."""
    refusal = find_refusal(error)
    reply_text = describe_error(error)
    return reply_text if refusal is None else f"{reply_text}. {refusal.advice}"


def describe_error(error: BaseException) -> str:
    """Return an error's text, escaped: the broker's text if there is one."""
    text = getattr(error, "reply_text", None) or str(error) or "no reason given"
    reply_text = escape(text)
    kind = type(error).__name__
    return reply_text if isinstance(error, BrokerError) else f"{reply_text} ({kind})"


def find_refusal(error: BaseException) -> Refusal[int] | None:
    """Return the first row of the table :data:`REFUSALS` that matches an error."""
    text = getattr(error, "reply_text", None)
    if not isinstance(text, str):
        return None
    code = getattr(error, "reply_code", None) or 0
    # Strips the name of the code: "ACCESS_REFUSED - …".
    words = re.sub(r"^[A-Z_]+ - ", "", text)
    return next((row for row in REFUSALS if _matches(row, code, words)), None)


def is_refused_as(error: BaseException, kind: type[BrokerError]) -> bool:
    """Return whether :data:`REFUSALS` translates an error to the class ``kind``."""
    row = find_refusal(error)
    return row is not None and row.error is kind


def lacks_exchange(error: BaseException, name: str) -> bool:
    """Return whether an error says that an exchange with this name does not exist."""
    reply_text = getattr(error, "reply_text", None) or ""
    not_found_text = f"NOT_FOUND - no exchange '{name}' in vhost '"
    if reply_text.endswith("..."):
        not_found_text = not_found_text[: len(reply_text) - len("...")]
    return bool(reply_text.startswith(not_found_text))


def _matches(row: Refusal[int], code: int, words: str) -> bool:
    return code in row.codes and re.search(row.pattern, words, re.DOTALL) is not None
