"""Which topics, groups and patterns stand for a queue. No I/O.

All that is ours begins with an underscore, which no pattern of a consumer's matches: so
nobody who subscribes to ``#`` gets somebody's retries and dead letters.
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

#: Seconds for which records are held back: at once, then doubling, and a week.
STEPS: tuple[int, ...] = (0, *(1 << n for n in range(20)), 604_800)
LONGEST = float(STEPS[-1])

_LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")

#: Characters that no topic's name may have; and underscores that would look like the
#: beginning of an escape.
_ESCAPE = re.compile(r"[^a-zA-Z0-9._-]|_(?=x[0-9A-F]+[^a-zA-Z0-9.-])")
_ESCAPED = re.compile("_x([0-9A-F]+)_")
_DELAYED = re.compile(re.escape(PREFIX) + r".*\.retry\.([0-9]+)")

#: One word, and the first one of a topic, which begins with no underscore.
_WORD = "[^.]*"
_FIRST = "[^_.][^.]*"


def escaped(name: str) -> str:
    """A name of which a topic's may be made; most names stay as they are.

    >>> escaped("billing"), escaped("celery@host"), escaped("_x40_")
    ('billing', 'celery_x40_host', '_x5F_x40_')
    """
    return _ESCAPE.sub(lambda found: f"_x{ord(found[0]):X}_", name)


def unescaped(name: str) -> str:
    """The name that was escaped.

    >>> unescaped("celery_x40_host"), unescaped("_x5F_x40_")
    ('celery@host', '_x40_')
    """
    return _ESCAPED.sub(_character, name)


def escaped_key(routing_key: str) -> str:
    """A routing key whose words may be in a topic's name, but for ``*`` and ``#``."""
    words = routing_key.split(".")
    return ".".join(each if each in ("*", "#") else escaped(each) for each in words)


def stands_for(topic: str, routing_key: str | None) -> bool:
    """Whether a topic has the name that is made of a routing key."""
    return routing_key is not None and topic == escaped_key(routing_key)


def _character(found: re.Match[str]) -> str:
    code = int(found[1], 16)
    return chr(code) if code <= sys.maxunicode else found[0]


def retry(queue: str, step: int) -> str:
    """The topic of what a queue gets again after so many seconds."""
    return f"{PREFIX}{escaped(queue)}.retry.{step}"


def suspects(queue: str) -> str:
    """The topic of a queue's suspects."""
    return f"{PREFIX}{escaped(queue)}.suspects"


def dead(queue: str) -> str:
    """The topic of a queue's dead letters."""
    return f"{PREFIX}{escaped(queue)}.dead"


def step_for(delay: float) -> int:
    """The shortest step that is no shorter than a delay; a week at the most.

    >>> step_for(0), step_for(0.4), step_for(5), step_for(1e9)
    (0, 1, 8, 604800)
    """
    return next((step for step in STEPS if step >= delay), STEPS[-1])


def steps_within(shortest: float, longest: float) -> list[int]:
    """The steps that delays from the one to the other come to."""
    first, last = step_for(shortest), step_for(longest)
    return [step for step in STEPS if first <= step <= last]


def holds_back(topic: str) -> bool:
    """Whether the records of a topic are handed out when they are due only."""
    return _DELAYED.fullmatch(topic) is not None


def delays(topic: str) -> bool:
    """Whether the records of a topic are due some time after they were written."""
    found = _DELAYED.fullmatch(topic)
    return found is not None and found[1] != "0"


def group(plan: QueuePlan, lane: Lane) -> str:
    """The consumer group that reads a lane."""
    return plan.name if lane is Lane.MAIN else plan.suspects


def subscription(plan: QueuePlan, lane: Lane) -> list[str]:
    """What the group of a lane reads: topics, and patterns that begin with ^."""
    if lane is not Lane.MAIN:
        return [suspects(plan.name)]
    return [*literal_topics(plan), *_patterns_of(plan), f"^{_retries(plan)}$"]


def literal_topics(plan: QueuePlan) -> list[str]:
    """The topics that a queue names in full."""
    return [plan.prefix + key for key in _keys(plan) if not is_pattern(key)]


def is_pattern(routing_key: str) -> bool:
    """Whether a routing key stands for many topics."""
    return any(word in ("*", "#") for word in routing_key.split("."))


def check_topic(name: str, what: str) -> str:
    """A name that a topic may have.

    :param what: What is called so, for the error.
    :raises UnsupportedByBroker: if no topic can be called that.
    """
    if not _LEGAL.fullmatch(name) or name in (".", ".."):
        raise UnsupportedByBroker(
            f"{what} {quote(name)} cannot be one on Kafka, where it names a topic or a"
            " group: letters, digits, '.', '_' and '-', 249 at the most."
        )
    return name


def check_prefix(prefix: str) -> None:
    """Refuse a prefix by which no topic can begin, or patterns would match ours.

    :raises UnsupportedByBroker: that says why.
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
    """Refuse a queue whose topics Kafka could not have.

    :raises UnsupportedByBroker: that says which name it is.
    """
    check_topic(retry(plan.name, STEPS[-1]), "The queue's topic")
    for topic in literal_topics(plan):
        check_topic(topic, "The routing key")


def check_alike(plans: Iterable[QueuePlan]) -> None:
    """Refuse topics that Kafka takes for one: it does not tell ``.`` from ``_``.

    :raises RegistrationError: that says which two.
    """
    known: dict[str, str] = {}
    for plan in plans:
        for topic in (dead(plan.name), *literal_topics(plan)):
            other = known.setdefault(topic.replace(".", "_"), topic)
            if other != topic:
                raise RegistrationError(
                    f"The topics {quote(other)} and {quote(topic)} cannot both be on"
                    " Kafka, which does not tell '.' from '_' in names. Change the"
                    " queue's name, or the routing key."
                )


def matches(plan: QueuePlan, topic: str) -> bool:
    """Whether a queue's own group reads a topic."""
    return reader(plan, Lane.MAIN)(topic)


def reader(plan: QueuePlan, lane: Lane) -> Callable[[str], bool]:
    """Tells whether the group of a lane reads a topic."""
    if lane is not Lane.MAIN:
        return suspects(plan.name).__eq__
    literal = set(literal_topics(plan))
    wild = [key for key in _keys(plan) if is_pattern(key)]
    own = re.compile(_retries(plan))
    return lambda topic: (
        topic in literal
        or any(_takes(plan.prefix, key, topic) for key in wild)
        or own.fullmatch(topic) is not None
    )


def patterns(routing_key: str, prefix: str = "") -> list[str]:
    """Regular expressions for the topics that a pattern means, for the client.

    They are extended ones of POSIX: there is no looking ahead.

    :param prefix: What the topics begin with; it stands for nothing but itself.

    >>> patterns("order.*")
    ['^order\\\\.[^.]*$']
    >>> patterns("#.failed")
    ['^failed$', '^[^_.][^.]*(\\\\.[^.]*)*\\\\.failed$']
    """
    begin = "^" + _quoted(prefix)
    return [f"{begin}{found}$" for found in _expressions(routing_key.split("."))]


def _expressions(words: list[str]) -> Iterator[str]:
    first, rest = words[0], words[1:]
    if first == "#":
        if rest:
            yield from _expressions(rest)
        if not rest or rest[0] != "#":
            yield f"{_FIRST}(\\.{_WORD})*" + _tail(rest)
    else:
        yield (_FIRST if first == "*" else _quoted(first)) + _tail(rest)


def _tail(words: list[str]) -> str:
    return "".join(map(_word, words))


def _word(word: str) -> str:
    if word == "#":
        return f"(\\.{_WORD})*"
    return "\\." + (_WORD if word == "*" else _quoted(word))


def _quoted(text: str) -> str:
    return re.sub(r"([^a-zA-Z0-9_-])", r"\\\1", text)


def _retries(plan: QueuePlan) -> str:
    """A regular expression for the topics of a queue's retries."""
    return _quoted(f"{PREFIX}{escaped(plan.name)}.retry.") + "[0-9]+"


def _takes(prefix: str, routing_key: str, topic: str) -> bool:
    """Whether a pattern means a topic: what :func:`patterns` say, in linear time.

    Python's regular expressions backtrack, which the client's (the C library's) do not.
    """
    if not topic.startswith(prefix):
        return False
    topic = topic.removeprefix(prefix)
    if topic.startswith(("_", ".")):  # No wildcard stands for a first word like these.
        while routing_key.startswith("#."):
            routing_key = routing_key[2:]
        if routing_key.partition(".")[0] in ("*", "#"):
            return False
    return topic_patterns.matches(routing_key, topic)


def _patterns_of(plan: QueuePlan) -> list[str]:
    keys = (key for key in _keys(plan) if is_pattern(key))
    found = (each for key in keys for each in patterns(key, plan.prefix))
    return list(dict.fromkeys(found))


def _keys(plan: QueuePlan) -> t.Iterable[str]:
    return dict.fromkeys(binding.routing_key for binding in plan.bindings)
