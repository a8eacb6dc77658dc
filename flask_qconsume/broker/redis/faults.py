"""What the redis package raises, in our words. No I/O."""

from __future__ import annotations

from redis import exceptions

from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...errors import PublishRefused
from ...errors import TopologyMismatch

_REFUSALS = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
)
_OUTAGES = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.InvalidResponse,
)
#: Errors that redis-py has no classes for, by the word that Redis begins them with.
_WORDS: dict[str, type[BrokerError]] = {
    "NOAUTH": BrokerRefused,
    "WRONGPASS": BrokerRefused,
    "NOPERM": BrokerRefused,
    "WRONGTYPE": TopologyMismatch,
    "OOM": PublishRefused,
    "MISCONF": BrokerUnavailable,
    "NOREPLICAS": BrokerUnavailable,
    "BUSY": BrokerUnavailable,
    "LOADING": BrokerUnavailable,
    "READONLY": BrokerUnavailable,
    "MASTERDOWN": BrokerUnavailable,
    "CLUSTERDOWN": BrokerUnavailable,
    "TRYAGAIN": BrokerUnavailable,
    "UNBLOCKED": BrokerUnavailable,
    "UNKILLABLE": BrokerUnavailable,
}
_SENTENCES = {
    BrokerRefused: "Redis refused us: {0}. Look at the user, the password and the"
    " permissions (ACL) behind 'QCONSUME_BROKER_URL'.",
    BrokerUnavailable: "There is no working connection to Redis: {0}.",
    TopologyMismatch: "Redis holds a key of ours as something else: {0}. Another"
    " program uses that name; set 'QCONSUME_QUEUE_PREFIX' or remove the key.",
    PublishRefused: "Redis refused the message: {0}. It is out of memory ('maxmemory');"
    " consume, or give it more.",
    BrokerError: "Redis answered with an error: {0}.",
}


class AnswerLost(BrokerUnavailable):
    """A connection was lost after we had sent something by it."""


class Moved(BrokerUnavailable):
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


def translated(error: Exception, *, sent: bool = False) -> BrokerError:
    """Our error for one of redis-py's.

    :param sent: Whether Redis may have done what we asked for.
    """
    if isinstance(error, exceptions.AskError):  # MovedError is one of them.
        return Moved(error)
    kind = _kind(error)
    text = str(error).strip().rstrip(".") or type(error).__name__
    sentence = _SENTENCES[kind].format(text)
    return (
        AnswerLost(sentence) if sent and kind is BrokerUnavailable else kind(sentence)
    )


def like(error: BrokerError) -> BrokerError:
    """The same for somebody else: an exception is raised in one place only."""
    kind = BrokerUnavailable if isinstance(error, BrokerUnavailable) else type(error)
    found = kind(str(error))
    found.__cause__ = error
    return found


def _kind(error: Exception) -> type[BrokerError]:
    # redis-py makes a refused password a ConnectionError, so refusals come first.
    if isinstance(error, _REFUSALS):
        return BrokerRefused
    if isinstance(error, _OUTAGES):
        return BrokerUnavailable
    if isinstance(error, exceptions.OutOfMemoryError):
        return PublishRefused
    words = [word.strip(":'\"-") for word in str(error).split()]
    # An error out of a script may begin with words of Redis' own.
    return next((_WORDS[word] for word in words if word in _WORDS), BrokerError)
