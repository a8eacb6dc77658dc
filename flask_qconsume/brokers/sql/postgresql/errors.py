"""Errors of PostgreSQL and psycopg, translated into those of this package. No I/O.

A server's error has a code of five characters, the SQLSTATE. libpq hides the code of an
error while a connection is opened, so such errors are told apart by their English text.
"""

from __future__ import annotations

import re
import typing as t

import psycopg

from ....broker.publish_request import AnswerLost
from ....errors import BrokerError
from ....errors import BrokerRefused
from ....errors import BrokerUnavailable
from ....errors import PublishRefused
from ....errors import TopologyMismatch
from ....errors import UnsupportedByBroker
from ..database import TablesMissing


class TransactionConflict(BrokerUnavailable):
    """PostgreSQL rolled back a transaction, which may succeed if it is repeated."""


class ServerIsReadOnly(BrokerUnavailable):
    """The server cannot be written: it is a standby, or became one."""


class Explanation(t.NamedTuple):
    """The exception and the text with which an error of PostgreSQL is raised."""

    kind: type[BrokerError]
    #: ``{0}`` is replaced by the text of PostgreSQL.
    sentence: str


_URL = "'QCONSUME_BROKER_URL'"
_POOLING = "'QCONSUME_TRANSPORT_OPTIONS' = {{'transaction_pooling': True}}"
_LOGIN = Explanation(
    BrokerRefused,
    f"PostgreSQL refused us: {{0}}. Look at the user and the password in {_URL}, and at"
    " the server's pg_hba.conf.",
)
_NO_DATABASE = Explanation(
    BrokerRefused,
    f"PostgreSQL refused us: {{0}}. Look at the end of {_URL}, or create it: CREATE"
    " DATABASE …",
)
_PERMISSION = Explanation(
    BrokerRefused,
    "PostgreSQL refused us: {0}. The user needs: GRANT USAGE ON SCHEMA … ; GRANT"
    " SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA … ; GRANT USAGE ON ALL"
    " SEQUENCES IN SCHEMA … ; and the user of 'flask qconsume declare', who owns the"
    " tables: GRANT CREATE ON SCHEMA …",
)
_MISSING = Explanation(
    TablesMissing,
    "PostgreSQL lacks tables of ours: {0}. Run 'flask qconsume declare'.",
)
_OTHER_TABLES = Explanation(
    TopologyMismatch,
    "The tables in PostgreSQL are not those of this release: {0}. Run 'flask qconsume"
    " declare'.",
)
_MESSAGE = Explanation(PublishRefused, "PostgreSQL refused the message: {0}.")
_NO_SCHEMA = Explanation(
    BrokerRefused,
    "PostgreSQL has no such schema: {0}. Create it: CREATE SCHEMA … ; its name is"
    " 'schema' in 'QCONSUME_TRANSPORT_OPTIONS', or in the user's search_path.",
)
_TOO_OLD = Explanation(
    UnsupportedByBroker,
    "This server lacks what is needed: {0}. It must be PostgreSQL 14 or later.",
)
_POOLER = Explanation(
    BrokerRefused,
    f"A pooler in front of PostgreSQL gets in the way: {{0}}. Set {_POOLING}.",
)
_OUTAGE = Explanation(
    BrokerUnavailable, "There is no working connection to PostgreSQL: {0}."
)
_LOCKED = Explanation(
    BrokerUnavailable,
    "PostgreSQL was busy for too long: {0}. If that lasts, look in pg_stat_activity and"
    " pg_locks for a session that locks our tables.",
)
_CONFLICT = Explanation(
    TransactionConflict, "PostgreSQL undid a transaction that met another one: {0}."
)
_FULL = Explanation(
    BrokerUnavailable,
    "PostgreSQL has no room: {0}. Nothing is lost; give it more.",
)
_CLIENTS = Explanation(
    BrokerUnavailable,
    "PostgreSQL has too many clients: {0}. See 'max_connections', and 'pool_size' in"
    " 'QCONSUME_TRANSPORT_OPTIONS'.",
)
_READ_ONLY = Explanation(
    ServerIsReadOnly,
    f"PostgreSQL can only be read: {{0}}. If that lasts, {_URL} must name the primary.",
)
_OTHER = Explanation(BrokerError, "PostgreSQL answered with an error: {0}.")

#: By SQLSTATE, or by its class, the first two characters. Source:
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
EXPLANATIONS: t.Mapping[str, Explanation] = {
    "08": _OUTAGE,
    "22": _MESSAGE,
    "23": _MESSAGE,
    "25006": _READ_ONLY,
    "26000": _POOLER,
    "28": _LOGIN,
    "3D": _NO_DATABASE,
    "3F": _NO_SCHEMA,
    "40": _CONFLICT,
    "42501": _PERMISSION,
    "42704": _TOO_OLD,
    "42703": _OTHER_TABLES,
    "42P01": _MISSING,
    "42P05": _POOLER,
    "53": _FULL,
    "53300": _CLIENTS,
    "54": _MESSAGE,
    "55P03": _LOCKED,
    "57": _OUTAGE,
    "57014": _LOCKED,
    "58": _OUTAGE,
    "XX": _OUTAGE,
}
#: Parts of the texts of errors while a connection is opened.
_EXPLANATIONS_BY_TEXT: t.Mapping[str, Explanation] = {
    "unsupported startup parameter": _POOLER,
    "password authentication failed": _LOGIN,
    "no password supplied": _LOGIN,
    "no pg_hba.conf entry": _LOGIN,
    "authentication failed for user": _LOGIN,
    "is not permitted to log in": _LOGIN,
    "too many connections for": _CLIENTS,
    "too many clients already": _CLIENTS,
    "remaining connection slots are reserved": _CLIENTS,
    "permission denied for database": _LOGIN,
    "session is read-only": _READ_ONLY,
}
_UNKNOWN_ROLE = re.compile(r'role ".*" does not exist')
_UNKNOWN_DATABASE = re.compile(r'database ".*" does not exist')

#: Classes of errors after which a commit may have happened: outages of the connection
#: and of the server.
_CODES_OF_OUTAGES = ("08", "57P", "58", "XX")


def translate_error(error: psycopg.Error, *, committing: bool = False) -> BrokerError:
    """Convert an error of psycopg to an error of this package.

    :param committing: Whether the server may have committed the transaction.
    """
    kind, sentence = _explain(error)
    if committing and (
        error.sqlstate is None or error.sqlstate.startswith(_CODES_OF_OUTAGES)
    ):
        kind = AnswerLost
    return kind(sentence.format(read_text(error)))


def read_text(error: psycopg.Error) -> str:
    """Return the first line of an error, without a full stop."""
    lines = str(error.diag.message_primary or error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _explain(error: psycopg.Error) -> Explanation:
    if (code := error.sqlstate) is not None:
        return EXPLANATIONS.get(code) or EXPLANATIONS.get(code[:2]) or _OTHER
    text = str(error)
    for part, explanation in _EXPLANATIONS_BY_TEXT.items():
        if part in text:
            return explanation
    if _UNKNOWN_ROLE.search(text):
        return _LOGIN
    return _NO_DATABASE if _UNKNOWN_DATABASE.search(text) else _OUTAGE
