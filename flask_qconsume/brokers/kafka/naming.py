"""The names of a queue's topics, consumer groups and topic patterns. No I/O.

Topics for retries, suspects and dead letters begin with an underscore, which no
wildcard matches: a consumer that subscribes to ``#`` gets no retries and no dead
letters of other queues.
"""

from __future__ import annotations

import re
import sys
import typing as t
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

from ...broker import topic_patterns
from ...broker.link import Lane
from ...broker.topology import QueuePlan
from ...errors import RegistrationError
from ...errors import UnsupportedByBroker
from ...text import quote

PREFIX = "_qconsume."

#: Delays in seconds for which there are topics: none, doubling from 1 s, and a week.
DELAY_STEPS_SECONDS: tuple[int, ...] = (0, *(1 << n for n in range(20)), 604_800)
MAX_DELAY_SECONDS = float(DELAY_STEPS_SECONDS[-1])

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

#: Characters that Kafka forbids in names of topics, and underscores that would look
#: like the beginning of an escape.
_ESCAPE = re.compile(r"[^a-zA-Z0-9._-]|_(?=x[0-9A-F]+[^a-zA-Z0-9.-])")
_ESCAPED = re.compile("_x([0-9A-F]+)_")
_RETRY_TOPIC = re.compile(re.escape(PREFIX) + r".*\.retry\.([0-9]+)")

#: Any word; and a topic's first word, which must not begin with an underscore.
_WORD = "[^.]*"
_FIRST = "[^_.][^.]*"


def escape(name: str) -> str:
    """Escape the characters of a name that Kafka forbids in topic names.

    >>> escape("billing"), escape("celery@host"), escape("_x40_")
    ('billing', 'celery_x40_host', '_x5F_x40_')
    """
    return _ESCAPE.sub(lambda character: f"_x{ord(character[0]):X}_", name)


def unescape(name: str) -> str:
    """Return the original of a name that :func:`escape` has escaped.

    >>> unescape("celery_x40_host"), unescape("_x5F_x40_")
    ('celery@host', '_x40_')
    """
    return _ESCAPED.sub(_unescape_character, name)


def escape_routing_key(routing_key: str) -> str:
    """Escape a routing key for use in a topic's name, but keep ``*`` and ``#``."""
    words = routing_key.split(".")
    return ".".join(word if word in ("*", "#") else escape(word) for word in words)


def is_named_after(topic: str, routing_key: str | None) -> bool:
    """Return whether a topic's name is the escaped form of a routing key."""
    return routing_key is not None and topic == escape_routing_key(routing_key)


def _unescape_character(escaped: re.Match[str]) -> str:
    code = int(escaped[1], 16)
    return chr(code) if code <= sys.maxunicode else escaped[0]


def retry_topic(queue: str, step: int) -> str:
    """Return the name of the topic for retries of a queue with a delay of ``step``."""
    return f"{PREFIX}{escape(queue)}.retry.{step}"


def suspects_topic(queue: str) -> str:
    """Return the name of the topic that holds a queue's suspects.

    A suspect is a message that was in flight when a process died.
    """
    return f"{PREFIX}{escape(queue)}.suspects"


def dead_letter_topic(queue: str) -> str:
    """Return the name of the topic that holds a queue's dead letters."""
    return f"{PREFIX}{escape(queue)}.dead"


def step_for(delay: float) -> int:
    """Round a delay up to the next delay for which there are retry topics.

    >>> step_for(0), step_for(0.4), step_for(5), step_for(1e9)
    (0, 1, 8, 604800)
    """
    return next(
        (step for step in DELAY_STEPS_SECONDS if step >= delay), DELAY_STEPS_SECONDS[-1]
    )


def is_retry_topic(topic: str) -> bool:
    """Return whether a topic holds retries, with or without a delay."""
    return _RETRY_TOPIC.fullmatch(topic) is not None


def is_delay_topic(topic: str) -> bool:
    """Return whether a topic holds retries with a delay."""
    match = _RETRY_TOPIC.fullmatch(topic)
    return match is not None and match[1] != "0"


def group_of(plan: QueuePlan, lane: Lane) -> str:
    """Return the name of the consumer group that reads a lane of a queue."""
    return lane.queue_of(plan)


def subscription(plan: QueuePlan, lane: Lane) -> list[str]:
    """Return the topics to subscribe to for a queue, or for its queue of suspects.

    Entries that begin with ``^`` are regular expressions.
    """
    if lane is not Lane.MAIN:
        return [suspects_topic(plan.name)]
    return [
        *literal_topics(plan),
        *_topic_expressions_of(plan),
        f"^{_retry_expression(plan)}$",
    ]


def literal_topics(plan: QueuePlan) -> list[str]:
    """Return the topics of those routing keys of a queue that have no wildcard."""
    return [plan.prefix + key for key in _routing_keys(plan) if not is_pattern(key)]


def is_pattern(routing_key: str) -> bool:
    """Return whether a routing key contains a wildcard, ``*`` or ``#``."""
    return any(word in ("*", "#") for word in routing_key.split("."))


def check_topic(name: str, what: str) -> str:
    """Return a topic's name unchanged, or refuse it if Kafka does not allow it.

    :param what: A description of the name, for the error.
    :raises UnsupportedByBroker: if Kafka forbids the name.
    """
    if not _LEGAL_NAME.fullmatch(name) or name in (".", ".."):
        raise UnsupportedByBroker(
            f"{what} {quote(name)} cannot be one on Kafka, where it names a topic or a"
            " group: letters, digits, '.', '_' and '-', 249 at the most."
        )
    return name


def check_prefix(prefix: str) -> None:
    """Refuse a queue prefix that Kafka does not allow in the names of topics.

    :raises UnsupportedByBroker: with the reason.
    """
    if not prefix:
        return
    check_topic(f"{prefix}x", "What begins with 'QCONSUME_QUEUE_PREFIX',")
    if PREFIX.startswith(prefix) or prefix.startswith(PREFIX):
        raise UnsupportedByBroker(
            f"'QCONSUME_QUEUE_PREFIX' cannot be {quote(prefix)} on Kafka: the topics"
            " of all retries, suspects and dead letters begin with"
            f" '{PREFIX}', so a consumer of '#' would read them. Choose another prefix."
        )


def check_plan(plan: QueuePlan) -> None:
    """Refuse a queue whose name or routing keys Kafka does not allow in topics.

    :raises UnsupportedByBroker: with the name.
    """
    check_topic(retry_topic(plan.name, DELAY_STEPS_SECONDS[-1]), "The queue's topic")
    for topic in literal_topics(plan):
        check_topic(topic, "The routing key")


def check_distinct(plans: Iterable[QueuePlan]) -> None:
    """Refuse two names of topics that differ only in ``.`` and ``_``.

    Kafka itself confuses such names in its metrics, and refuses them. || :raises
    RegistrationError: with both names.
    """
    topics_by_metric_name: dict[str, str] = {}
    for plan in plans:
        for topic in (dead_letter_topic(plan.name), *literal_topics(plan)):
            other_topic = topics_by_metric_name.setdefault(
                topic.replace(".", "_"), topic
            )
            if other_topic != topic:
                raise RegistrationError(
                    f"The topics {quote(other_topic)} and {quote(topic)} cannot both be"
                    " on Kafka, which does not tell '.' from '_' in names. Change the"
                    " queue's name, or the routing key."
                )


def is_read_by(plan: QueuePlan, topic: str) -> bool:
    """Return whether the consumer group of a queue reads a topic."""
    return topic_filter(plan, Lane.MAIN)(topic)


def topic_filter(plan: QueuePlan, lane: Lane) -> Callable[[str], bool]:
    """Return a function that tells whether a topic is read in a lane of a queue.

    The lane is the main queue or the queue of suspects.
    """
    if lane is not Lane.MAIN:
        return suspects_topic(plan.name).__eq__
    literal = set(literal_topics(plan))
    wild = [key for key in _routing_keys(plan) if is_pattern(key)]
    retry_topic = re.compile(_retry_expression(plan))
    return lambda topic: (
        topic in literal
        or any(_matches_pattern(plan.prefix, key, topic) for key in wild)
        or retry_topic.fullmatch(topic) is not None
    )


def topic_expressions(routing_key: str, prefix: str = "") -> list[str]:
    """Return regular expressions for the topics of a routing key with wildcards.

    The Kafka client takes POSIX extended expressions, which have no look-ahead.

    :param prefix: The literal beginning of the topics' names.

    >>> topic_expressions("order.*")
    ['^order\\\\.[^.]*$']
    >>> topic_expressions("#.failed")
    ['^failed$', '^[^_.][^.]*(\\\\.[^.]*)*\\\\.failed$']
    """
    begin = "^" + _escape_expression(prefix)
    return [
        f"{begin}{expression}$" for expression in _expressions(routing_key.split("."))
    ]


def _expressions(words: list[str]) -> Iterator[str]:
    first_word, words_after = words[0], words[1:]
    if first_word == "#":
        if words_after:
            yield from _expressions(words_after)
        if not words_after or words_after[0] != "#":
            yield f"{_FIRST}(\\.{_WORD})*" + _following_words(words_after)
    else:
        yield (
            _FIRST if first_word == "*" else _escape_expression(first_word)
        ) + _following_words(words_after)


def _following_words(words: list[str]) -> str:
    return "".join(map(_word_expression, words))


def _word_expression(word: str) -> str:
    if word == "#":
        return f"(\\.{_WORD})*"
    return "\\." + (_WORD if word == "*" else _escape_expression(word))


def _escape_expression(text: str) -> str:
    return re.sub(r"([^a-zA-Z0-9_-])", r"\\\1", text)


def _retry_expression(plan: QueuePlan) -> str:
    return _escape_expression(f"{PREFIX}{escape(plan.name)}.retry.") + "[0-9]+"


def _matches_pattern(prefix: str, routing_key: str, topic: str) -> bool:
    """Return whether a routing key with wildcards matches a topic's name.

    The expressions of :func:`topic_expressions` match the same topics, but are only for
    the client's C library: Python's ``re`` would backtrack.
    """
    if not topic.startswith(prefix):
        return False
    topic = topic.removeprefix(prefix)
    if topic.startswith(("_", ".")):  # No wildcard stands for such a first word.
        while routing_key.startswith("#."):
            routing_key = routing_key[2:]
        if routing_key.partition(".")[0] in ("*", "#"):
            return False
    return topic_patterns.matches(routing_key, topic)


def _topic_expressions_of(plan: QueuePlan) -> list[str]:
    keys = (key for key in _routing_keys(plan) if is_pattern(key))
    expressions = (
        expression for key in keys for expression in topic_expressions(key, plan.prefix)
    )
    return list(dict.fromkeys(expressions))


def _routing_keys(plan: QueuePlan) -> t.Iterable[str]:
    return dict.fromkeys(binding.routing_key for binding in plan.bindings)
