"""Errors of Redis and of the redis package, translated into those of this package.

An error of Redis begins with a code. Only errors with the general code ``ERR`` are told
apart by the beginning of their text; the rest of a text may contain names that users
chose, so it is not searched. No I/O.
"""

from __future__ import annotations

import re
import typing as t

from redis import exceptions
from redis.sentinel import MasterNotFoundError

from ...broker.publish_request import AnswerLost
from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...errors import TopologyMismatch
from ...errors import UnsupportedByBroker


class MemoryFull(PublishRefused):
    """Redis refuses to write, because its memory has reached ``maxmemory``."""


class SlotMoved(BrokerUnavailable):
    """A cluster's node refused a command, because another node has its keys."""

    def __init__(self, error: exceptions.AskError) -> None:
        #: The node that has the slot, ``host:port``.
        self.address = f"{error.host}:{error.port}"
        #: Whether that node is still importing the slot.
        self.asking = not isinstance(error, exceptions.MovedError)
        super().__init__(
            f"The slot {error.slot_id} of the Redis Cluster is on another node now:"
            f" {self.address}."
        )


class Meaning(t.NamedTuple):
    """How an error of Redis is raised: the class of the exception, and its text."""

    kind: type[BrokerError]
    #: ``{0}`` is replaced by the text of Redis.
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
_IS_A_CLUSTER = Meaning(
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
_OTHER = Meaning(BrokerError, "Redis answered with an error: {0}.")


def _create_temporary(why: str, remedy: str = "") -> Meaning:
    """Return the exception for an error that is likely to go away by itself."""
    return Meaning(BrokerUnavailable, f"Redis {why}: {{0}}.{remedy and ' ' + remedy}")


#: By Redis' codes, and by codes of our own for the texts in ``_TEXTS``. Sources:
#: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors and
#: ``server.c`` (``createSharedObjects``), ``cluster.c``, ``acl.c``, ``networking.c``.
MEANINGS: t.Mapping[str, Meaning] = {
    "NOAUTH": _REFUSED,
    "WRONGPASS": _REFUSED,
    "DENIED": _REFUSED,
    "NOPERM": _NOT_PERMITTED,
    "CROSSSLOT": _IS_A_CLUSTER,
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
    "MISCONF": _create_temporary(
        "writes nothing now", "It could not save its data: look at its log and disk."
    ),
    "NOREPLICAS": _create_temporary(
        "writes nothing now", "See 'min-replicas-to-write' and its replicas."
    ),
    "READONLY": _create_temporary(
        "is a replica",
        "If that lasts, 'QCONSUME_BROKER_URL' must name the master, or sentinels.",
    ),
    "BUSY": _create_temporary(
        "runs a script for too long", "'SCRIPT KILL' ends one that has not written."
    ),
    "LOADING": _create_temporary("is not ready yet"),
    "MASTERDOWN": _create_temporary("is a replica without its master"),
    "CLUSTERDOWN": _create_temporary("is a cluster that is not complete"),
    "TRYAGAIN": _create_temporary("is moving the keys"),
    "UNBLOCKED": _create_temporary("ended a wait"),
    # Codes of our own, for errors with the code ERR.
    "UNKNOWN": _TOO_OLD,
    "DATABASE": _NO_DATABASE,
    "ONLY-DATABASE": _IS_A_CLUSTER,
    "NO-CLUSTER": Meaning(
        BrokerRefused,
        "This Redis is not a cluster: {0}. 'QCONSUME_BROKER_URL' must begin with"
        " 'redis-streams://'.",
    ),
    "KILLED": _create_temporary("ended a script of ours"),
    "CLIENTS": _create_temporary("has too many clients", "See 'maxclients'."),
    # Codes of our own, for errors of redis-py.
    "SENTINEL": _create_temporary(
        "has no master that the sentinels know",
        "If that lasts, look at 'master_name' and 'sentinel_kwargs' among"
        " 'QCONSUME_TRANSPORT_OPTIONS'.",
    ),
    "PROTOCOL": _create_temporary(
        "does not answer as Redis does",
        "If that lasts, 'QCONSUME_BROKER_URL' names the port of another program.",
    ),
}
#: How texts behind ``ERR`` begin, and our codes for them.
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
#: Codes of redis-py's exceptions for Redis' errors, since their texts lack the code,
#: and our codes for redis-py's own errors.
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
#: Codes of commands that this Redis lacks, or that the user may not use.
MISSING = ("NOPERM", "UNKNOWN")
_OUTAGES = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
)
#: The prefix of an error that ended a script: of Redis before 7, and of Redis 7 if the
#: script has caught the error and raised it again.
_IN_SCRIPT = re.compile(
    r"^(Error running script \(call to f_\w+\): (@[^:]*: ?\d+: )*-?)?(ERR )?"
)


def read_error_code(error: Exception) -> str:
    """Return the first word of an error of Redis, which is its code.

    >>> read_error_code(exceptions.ResponseError("BUSY Redis is busy running a script"))
    'BUSY'
    >>> read_error_code(exceptions.ResponseError("unknown command 'OOM'"))
    'UNKNOWN'
    """
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    text = _IN_SCRIPT.sub("", str(error), count=1)
    codes = (code for begin, code in _TEXTS.items() if text.lower().startswith(begin))
    return next(codes, text.partition(" ")[0])


def read_error_text(error: Exception) -> str:
    """Return the text of an error, without a full stop."""
    return str(error).strip().rstrip(".") or type(error).__name__


def translate_error(error: Exception, *, sent: bool = False) -> BrokerError:
    """Convert an error of redis-py to an error of this package.

    :param sent: Whether the command was sent, so that Redis may have run it.
    """
    if isinstance(error, exceptions.AskError):  # MovedError is one of them.
        return SlotMoved(error)
    kind, sentence = _find_meaning(error)
    text = read_error_text(error)
    lost = sent and kind is BrokerUnavailable
    return (AnswerLost if lost else kind)(sentence.format(text))


def create_cluster_error(error: SlotMoved) -> BrokerError:
    """Return the error for a URL of one server, which is a part of a cluster."""
    kind, sentence = _IS_A_CLUSTER
    return kind(sentence.format(str(error).rstrip(".")))


def _find_meaning(error: Exception) -> Meaning:
    # redis-py makes a refused password a ConnectionError: look for its code first.
    meaning = MEANINGS.get(read_error_code(error))
    if meaning is not None:
        return meaning
    return _OUTAGE if isinstance(error, _OUTAGES) else _OTHER
