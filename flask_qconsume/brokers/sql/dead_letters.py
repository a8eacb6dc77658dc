"""The dead letters of one queue, in the table ``qconsume_dead``."""

from __future__ import annotations

import json
import sys
import typing as t
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import sqlalchemy as sa

from ...broker import headers as own_headers
from ...broker.dead_letters import DeadLetter
from ...broker.dead_letters import DeadLetterFilter
from ...broker.dead_letters import DeadLetters
from ...broker.topology import QueuePlan
from .app_database import AppDatabase
from .database import Step
from .dead_columns import fold
from .dead_columns import shorten_id
from .json_rows import contains
from .json_rows import decode_rows
from .json_rows import each_pair
from .json_rows import rows_as_json
from .rows import encode_copy
from .rows import read_message
from .schema import DEAD
from .schema import MESSAGE
from .schema import D
from .schema import now
from .statements import one_of

#: Dead letters that one search finds, and bytes that one query reads. Other greenlets
#: run between two queries, and stand still while the rows of a query are decoded.
_LETTERS_PER_SEARCH = 50
_BYTES_PER_PAGE = 256 * 1024
#: Dead letters that one transaction removes.
_LETTERS_PER_TRANSACTION = 200

_MAX_NUMBER = 2**63 - 1
_ALL = DeadLetterFilter()

_queue = sa.bindparam("queue_", type_=sa.Text())
_is_searched = (
    (D.until > now())
    & (D.id > sa.bindparam("after", type_=sa.BigInteger()))
    & (D.id <= sa.bindparam("last", type_=sa.BigInteger()))
    & contains(D.search, "needle")
    & D.died_at.between(
        sa.bindparam("since_", type_=sa.Double()),
        sa.bindparam("before_", type_=sa.Double()),
    )
)
_named = sa.union(
    sa.select(D.id).where(one_of(D.id, "refs")),
    sa.select(D.id).where(one_of(D.message_id, "names")),
)
# For the plain column, SQLite would use its index, and not the few numbers.
_is_of_queue = sa.func.coalesce(D.queue, "") == _queue
_IS_WANTED = (D.queue == _queue) & _is_searched
_IS_NAMED_AND_WANTED = D.id.in_(_named) & _is_of_queue & _is_searched


def _find(condition: sa.ColumnElement[bool]) -> sa.Executable:
    found = (
        sa.select(D.id, D.size)
        .where(condition)
        .order_by(D.id)
        .limit(_LETTERS_PER_SEARCH)
        .subquery()
    )
    return sa.select(rows_as_json(found.c.id, found.c.size))


def _count(condition: sa.ColumnElement[bool]) -> sa.Executable:
    return sa.select(sa.func.count()).where(condition)


_all_rows = sa.select(sa.func.count()).where(D.queue == _queue)
_expired = sa.select(sa.func.count()).where(_is_of_queue, D.until <= now())
#: Parameters: queue_. The number of a queue's dead letters, from two indexes only.
COUNT_ALL: sa.Executable = sa.select(
    _all_rows.scalar_subquery() - _expired.scalar_subquery()
)
#: Parameters: queue_, after, last, needle, since_, before_. One value: JSON with the
#: numbers and sizes of dead letters, the oldest first.
FIND = _find(_IS_WANTED)
COUNT = _count(_IS_WANTED)
#: Parameters: those of ``FIND``, refs, names.
FIND_NAMED = _find(_IS_NAMED_AND_WANTED)
COUNT_NAMED = _count(_IS_NAMED_AND_WANTED)
#: Parameters: queue_.
FIND_LAST = sa.select(sa.func.coalesce(sa.func.max(D.id), 0)).where(D.queue == _queue)
#: Parameters: ids.
READ = sa.select(D.id, D.meta, D.body).where(one_of(D.id, "ids")).order_by(D.id)

_pairs = each_pair(sa.bindparam("metas", type_=sa.Text())).table_valued(
    "key", "value", name="pair"
)
#: Parameters: queue_, metas (JSON: the copies' ``meta``, by the numbers of the dead
#: letters). Dead letters that another process has taken have no copy.
REPLAY = sa.insert(MESSAGE).from_select(
    ["queue", "rank", "key", "meta", "body"],
    sa.select(_queue, D.rank, D.key, _pairs.c.value, D.body)
    .select_from(_pairs.join(DEAD, D.id == sa.cast(_pairs.c.key, sa.BigInteger())))
    .order_by(D.id)
    .with_for_update(of=DEAD),
)
#: Parameters: ids.
REMOVE = sa.delete(DEAD).where(one_of(D.id, "ids"))


class SqlDeadLetters(DeadLetters):
    """The dead letters of one queue in a database.

    :param wanted: Dead letters that this filter refuses may be left out.
    """

    def __init__(
        self,
        plan: QueuePlan,
        shared: AppDatabase,
        wanted: DeadLetterFilter = _ALL,
    ) -> None:
        self._plan = plan
        self._shared = shared
        self._database = shared.database
        self._parameters = _make_parameters(plan, wanted)
        self._names_letters = bool(wanted.ids)
        self._has_all = wanted == _ALL

    def narrow(self, wanted: DeadLetterFilter) -> SqlDeadLetters:
        return SqlDeadLetters(self._plan, self._shared, wanted)

    def count(self) -> int:
        statement = COUNT_NAMED if self._names_letters else COUNT
        if self._has_all:
            statement = COUNT_ALL
        (number,) = self._database.read_one(statement, self._parameters)
        return int(number)

    def __iter__(self) -> Iterator[DeadLetter]:
        return self._find_letters(_MAX_NUMBER)

    def take(
        self,
        wanted: t.Callable[[DeadLetter], bool],
        replay: bool,
        progress: t.Callable[[], t.Any] = lambda: None,
    ) -> int:
        # Without this limit, a replayed message that fails again, and is appended,
        # would be replayed for ever.
        (last,) = self._database.read_one(FIND_LAST, {"queue_": self._plan.dead})
        taken_count = 0
        chosen: list[DeadLetter] = []
        for letter in self._find_letters(last):
            if wanted(letter):
                chosen.append(letter)
            if len(chosen) == _LETTERS_PER_TRANSACTION:
                taken_count += self._take(chosen, replay)
                chosen = []
            progress()
        return taken_count + (self._take(chosen, replay) if chosen else 0)

    def _take(self, letters: Sequence[DeadLetter], replay: bool) -> int:
        """Remove, and maybe replay, dead letters in one transaction; count them."""
        steps = [Step(REMOVE, {"ids": [int(letter.ref) for letter in letters]})]
        if replay:
            steps.insert(0, self._create_replay(letters))
        *_, removed = self._database.write(steps)
        if replay and removed.changed:
            self._shared.watcher.announce({self._plan.name})
        return removed.changed

    def _create_replay(self, letters: Sequence[DeadLetter]) -> Step:
        metas = {letter.ref: self._encode_copy(letter) for letter in letters}
        return Step(REPLAY, {"queue_": self._plan.name, "metas": json.dumps(metas)})

    def _encode_copy(self, letter: DeadLetter) -> str:
        headers = own_headers.make_replay_headers(letter.message.headers)
        return encode_copy(letter.message, headers, self._plan.name)

    # -- reading -----------------------------------------------------------------------

    def _find_letters(self, last: int) -> Iterator[DeadLetter]:
        """Find and read dead letters up to a number, the oldest first."""
        after = 0
        while found := self._find(after, last):
            for page in _split_into_pages(found):
                yield from self._read(page)
            after = found[-1][0]

    def _read(self, ids: Sequence[int]) -> Iterator[DeadLetter]:
        for id, meta, body in self._database.read(READ, {"ids": ids}):
            message = read_message(meta, body, self._plan.name)
            headers = own_headers.select_own(message.headers)
            yield DeadLetter(str(id), self._plan.name, message, headers)

    def _find(self, after: int, last: int) -> list[Sequence[int]]:
        statement = FIND_NAMED if self._names_letters else FIND
        parameters = {**self._parameters, "after": after, "last": last}
        (text,) = self._database.read_one(statement, parameters)
        return decode_rows(text)


def _make_parameters(plan: QueuePlan, wanted: DeadLetterFilter) -> Mapping[str, t.Any]:
    parameters = {
        "queue_": plan.dead,
        "after": 0,
        "last": _MAX_NUMBER,
        "needle": fold(wanted.error or ""),
        "since_": 0.0 if wanted.after is None else wanted.after,
        "before_": sys.float_info.max if wanted.before is None else wanted.before,
    }
    if wanted.ids:
        parameters["refs"] = [int(id) for id in wanted.ids if _is_number(id)]
        parameters["names"] = [shorten_id(id) for id in wanted.ids]
    return parameters


def _is_number(text: str) -> bool:
    # Not all numbers of 19 digits fit into 64 bits.
    return text.isascii() and text.isdigit() and len(text) < 19


def _split_into_pages(found: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    page: list[int] = []
    size = 0
    for number, letter_size in found:
        if page and size + letter_size > _BYTES_PER_PAGE:
            yield page
            page, size = [], 0
        page.append(number)
        size += letter_size
    yield page
