"""What Redis refuses, and what the redis package raises, in our words. No I/O.

The first word of an error of Redis' is its code; the rest is a text that holds names of
others, and decides nothing. Where Redis has no code but ``ERR``, a text of its own
stands at the beginning, and is looked for there only.
"""

from __future__ import annotations

import re
import typing as t

from redis import exceptions
from redis.sentinel import MasterNotFoundError

from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...errors import TopologyMismatch
from ...errors import UnsupportedByBroker


class AnswerLost(BrokerUnavailable):
    """A connection was lost after we had sent something by it."""


class MemoryFull(PublishRefused):
    """Redis is at its ``maxmemory``: it takes no more, and gives what it has."""


class SlotMoved(BrokerUnavailable):
    """A node of a cluster does not have the slot of the keys, or not any more."""

    def __init__(self, error: exceptions.AskError) -> None:
        #: The node that has it, ``host:port``.
        self.address = f"{error.host}:{error.port}"
        #: Whether it is still on its way there.
        self.asking = not isinstance(error, exceptions.MovedError)
        super().__init__(
            f"The slot {error.slot_id} of the Redis Cluster is on another node now:"
            f" {self.address}."
        )


class Meaning(t.NamedTuple):
    """What an error of Redis' means here."""

    kind: type[BrokerError]
    #: With what Redis says in the place of ``{0}``.
    sentence: str


_REFUSED = Meaning(
    BrokerRefused,
    "Redis refused us: {0}. Look at the user, the password and the permissions (ACL)"
    " behind 'QCONSUME_BROKER_URL'.",
)
_NOT_PERMITTED = Meaning(
    BrokerRefused,
    "Redis refused us: {0}. The user of 'QCONSUME_BROKER_URL' needs more permissions:"
    " 'ACL SETUSER' with '+' and the command, or '~' and the keys; 'ACL LOG' tells"
    " which it was.",
)
_A_CLUSTER = Meaning(
    BrokerRefused,
    "This Redis is a node of a cluster: {0}. 'QCONSUME_BROKER_URL' must begin with"
    " 'redis-streams+cluster://', and name no database.",
)
_NO_DATABASE = Meaning(
    BrokerRefused,
    "Redis has no such database: {0}. 'QCONSUME_BROKER_URL' ends with its number, and"
    " the server's 'databases' says how many there are.",
)
_TOO_OLD = Meaning(
    UnsupportedByBroker,
    "This Redis lacks what is needed: {0}. It must be Redis 6.2 or later, or Valkey,"
    " with no command renamed or disabled.",
)
_OUTAGE = Meaning(BrokerUnavailable, "There is no working connection to Redis: {0}.")
_ANY = Meaning(BrokerError, "Redis answered with an error: {0}.")


def _unavailable(why: str, remedy: str = "") -> Meaning:
    """A state that ends: it is tried again."""
    return Meaning(BrokerUnavailable, f"Redis {why}: {{0}}.{remedy and ' ' + remedy}")


#: By Redis' codes, and by the words in capitals that stand for texts in ``_TEXTS``.
#: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors and
#: ``server.c`` (``createSharedObjects``), ``cluster.c``, ``acl.c``, ``networking.c``.
MEANINGS: t.Mapping[str, Meaning] = {
    "NOAUTH": _REFUSED,
    "WRONGPASS": _REFUSED,
    "DENIED": _REFUSED,
    "NOPERM": _NOT_PERMITTED,
    "CROSSSLOT": _A_CLUSTER,
    "NOPROTO": _TOO_OLD,
    "WRONGTYPE": Meaning(
        TopologyMismatch,
        "Redis holds a key of ours as something else: {0}. Another program uses that"
        " name; set 'QCONSUME_QUEUE_PREFIX' or remove the key.",
    ),
    "OOM": Meaning(
        MemoryFull,
        "Redis refused the message: {0}. It is out of memory ('maxmemory'); consume, or"
        " give it more.",
    ),
    "MISCONF": _unavailable(
        "writes nothing now", "It could not save its data: look at its log and disk."
    ),
    "NOREPLICAS": _unavailable(
        "writes nothing now", "See 'min-replicas-to-write' and its replicas."
    ),
    "READONLY": _unavailable(
        "is a replica",
        "If that lasts, 'QCONSUME_BROKER_URL' must name the master, or sentinels.",
    ),
    "BUSY": _unavailable(
        "runs a script for too long", "'SCRIPT KILL' ends one that has not written."
    ),
    "LOADING": _unavailable("is not ready yet"),
    "MASTERDOWN": _unavailable("is a replica without its master"),
    "CLUSTERDOWN": _unavailable("is a cluster that is not complete"),
    "TRYAGAIN": _unavailable("is moving the keys"),
    "UNBLOCKED": _unavailable("ended a wait"),
    # What follows has no code but ERR.
    "UNKNOWN": _TOO_OLD,
    "DATABASE": _NO_DATABASE,
    "ONLY-DATABASE": _A_CLUSTER,
    "NO-CLUSTER": Meaning(
        BrokerRefused,
        "This Redis is no cluster: {0}. 'QCONSUME_BROKER_URL' must begin with"
        " 'redis-streams://'.",
    ),
    "KILLED": _unavailable("ended a script of ours"),
    "CLIENTS": _unavailable("has too many clients", "See 'maxclients'."),
    # What redis-py itself says.
    "SENTINEL": _unavailable(
        "has no master that the sentinels know",
        "If that lasts, look at 'master_name' and 'sentinel_kwargs' among"
        " 'QCONSUME_TRANSPORT_OPTIONS'.",
    ),
    "PROTOCOL": _unavailable(
        "does not answer as Redis does",
        "If that lasts, 'QCONSUME_BROKER_URL' names the port of another program.",
    ),
}
#: How the texts begin that Redis has no codes for.
_TEXTS: t.Mapping[str, str] = {
    "unknown command": "UNKNOWN",
    "unknown subcommand": "UNKNOWN",
    "unknown redis command": "UNKNOWN",
    "the user executing the script can't": "NOPERM",
    "acl failure in script": "NOPERM",
    "script killed": "KILLED",
    "wait cannot be used with replica": "READONLY",
    "db index is out of range": "DATABASE",
    "invalid db index": "DATABASE",
    "select is not allowed in cluster mode": "ONLY-DATABASE",
    "this instance has cluster support disabled": "NO-CLUSTER",
    "max number of clients reached": "CLIENTS",
}
#: The codes that redis-py takes off, by the classes that it makes of them; and words of
#: ours for errors of its own.
_CODES: t.Mapping[type[Exception], str] = {
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.AuthorizationError: "NOAUTH",
    exceptions.AuthenticationWrongNumberOfArgsError: "WRONGPASS",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.ClusterCrossSlotError: "CROSSSLOT",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.InvalidResponse: "PROTOCOL",
    MasterNotFoundError: "SENTINEL",
}
_OUTAGES = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
)
#: What Redis before 7 puts before an error that ended a script, and Redis 7 before the
#: code of one that a script has looked at and raised again.
_IN_SCRIPT = re.compile(
    r"^(Error running script \(call to f_\w+\): (@[^:]*: ?\d+: )*-?)?(ERR )?"
)


def error_code(error: Exception) -> str:
    """What Redis calls an error, or a word of ours where it has no code for it.

    >>> error_code(exceptions.ResponseError("BUSY Redis is busy running a script"))
    'BUSY'
    >>> error_code(exceptions.ResponseError("unknown command 'OOM'"))
    'UNKNOWN'
    """
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    text = _IN_SCRIPT.sub("", str(error), count=1)
    found = (code for begin, code in _TEXTS.items() if text.lower().startswith(begin))
    return next(found, text.partition(" ")[0])


def error_text(error: Exception) -> str:
    """What an error says, without a full stop."""
    return str(error).strip().rstrip(".") or type(error).__name__


def translate_error(error: Exception, *, sent: bool = False) -> BrokerError:
    """Our error for one of redis-py's.

    :param sent: Whether Redis may have done what we asked for.
    """
    if isinstance(error, exceptions.AskError):  # MovedError is one of them.
        return SlotMoved(error)
    kind, sentence = _meaning(error)
    text = error_text(error)
    lost = sent and kind is BrokerUnavailable
    return (AnswerLost if lost else kind)(sentence.format(text))


def create_cluster_error(error: SlotMoved) -> BrokerError:
    """What :class:`SlotMoved` means to a client that follows no slots."""
    kind, sentence = _A_CLUSTER
    return kind(sentence.format(str(error).rstrip(".")))


def copy_error(error: BrokerError) -> BrokerError:
    """The same for somebody else: an exception is raised in one place only."""
    kind = BrokerUnavailable if isinstance(error, BrokerUnavailable) else type(error)
    found = kind(str(error))
    found.__cause__ = error
    return found


def _meaning(error: Exception) -> Meaning:
    # redis-py makes a refused password a ConnectionError, so outages come last.
    found = MEANINGS.get(error_code(error))
    if found is not None:
        return found
    return _OUTAGE if isinstance(error, _OUTAGES) else _ANY
