"""Dead letters in a database: searched by columns, replayed and purged in batches."""

from __future__ import annotations

import itertools
import json
import threading
import time
import traceback
import typing as t

import pytest
import sqlalchemy as sa

from flask_qconsume.broker import headers as own_headers
from flask_qconsume.broker.dead_letters import DeadLetter
from flask_qconsume.broker.dead_letters import DeadLetterFilter
from flask_qconsume.broker.dead_letters import DeadLetters
from flask_qconsume.broker.link import Forward
from flask_qconsume.broker.link import Lane
from flask_qconsume.brokers.sql import dead_columns
from flask_qconsume.brokers.sql.database import Step
from flask_qconsume.brokers.sql.schema import MESSAGE

from .tools import QUEUE
from .tools import SqlQueue
from .tools import bodies
from .tools import execute
from .tools import run


def bury(
    queue: SqlQueue,
    *errors: BaseException | str,
    expires: float = 600.0,
    died_at: float | None = None,
    count: int | None = None,
    **options: t.Any,
) -> DeadLetters:
    """Make a dead letter for each error, or reason.

    :param count: The number of messages to publish before, if not one for each.
    """
    queue.publish(*range(len(errors) if count is None else count), **options)
    link = queue.link()
    for delivery, error in zip(queue.take(link, len(errors)), errors, strict=True):
        is_reason = isinstance(error, str)
        headers = own_headers.make_dead_letter_headers(
            delivery.message,
            QUEUE,
            QUEUE,
            error if isinstance(error, str) else "failed 6 of 6 attempts",
            None if is_reason else t.cast(BaseException, error),
            time.time() if died_at is None else died_at,
        )
        forward = Forward(delivery, Lane.DEAD, headers, expires=expires)
        assert link.forward([forward]) == [None]
    link.close()
    return queue.broker.dead_letters(queue.plan)


def raised(error: BaseException) -> BaseException:
    """Return an error with a traceback."""
    try:
        raise error
    except BaseException as caught:
        return caught


def find(letters: DeadLetters, **conditions: t.Any) -> list[int]:
    """Return the bodies of the dead letters to which letters are narrowed."""
    narrow = letters.narrow(DeadLetterFilter(**conditions))
    found = [int(letter.message.raw) for letter in narrow]
    assert narrow.count() == len(found)
    return found


def want(letter: DeadLetter) -> bool:
    return True


# -- search ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["Carte refusée", "CARTE REFUSÉE", "STRASSE", "straße", "nul\0l", "valueerr"],
)
def test_errors_are_searched_as_the_filter_compares_them(
    text: str, queue: SqlQueue
) -> None:
    error = ValueError("carte refusée, Straße, nul\0l, \udcff")
    letters = bury(queue, "other", error, "carte refusée: strasse, nul\0l, valueerror")
    wanted = DeadLetterFilter(error=text)
    assert find(letters, error=text) == [1, 2]
    assert [int(each.message.raw) for each in letters if wanted(each)] == [1, 2]


def test_a_percent_sign_is_no_wildcard(queue: SqlQueue) -> None:
    letters = bury(queue, "100 % full", "100 of a full disk", "100_")
    assert find(letters, error="100 %") == [0]
    assert find(letters, error="100_") == [2]
    assert find(letters, error="") == [0, 1, 2]


def test_dead_letters_are_found_by_their_time(queue: SqlQueue) -> None:
    letters = bury(queue, "early", died_at=1_000.0)
    bury(queue, "late", died_at=2_000.5)
    reasons = [
        [each.headers[own_headers.REASON] for each in letters.narrow(wanted)]
        for wanted in (
            DeadLetterFilter(before=1_999.0),
            DeadLetterFilter(after=1_999.0),
            DeadLetterFilter(after=1_000.0, before=2_000.5),
            DeadLetterFilter(after=2_001.0),
        )
    ]
    assert reasons == [["early"], ["late"], ["early", "late"], []]


def test_dead_letters_are_found_by_ref_and_by_id(queue: SqlQueue) -> None:
    letters = bury(queue, "a", "b", "c")
    first, second, _ = letters
    long_id = "i" * 250
    bury(queue, "long", id=long_id)
    ids = frozenset([first.ref, t.cast(str, second.message.id), "9" * 5_000, "²"])
    assert find(letters, ids=ids) == [0, 1]
    assert find(letters, ids=frozenset([long_id])) == [0]
    assert find(letters, ids=frozenset(["nothing"])) == []


def test_dead_letters_of_another_queue_are_not_found(queue: SqlQueue) -> None:
    letters = bury(queue, "a")
    (letter,) = letters
    run(queue, "UPDATE qconsume_dead SET queue = 'other.dead'")
    assert find(letters) == find(letters, ids=frozenset([letter.ref])) == []


def test_expired_dead_letters_are_neither_shown_nor_counted(queue: SqlQueue) -> None:
    letters = bury(queue, "gone", expires=-1.0)
    assert (list(letters), letters.count(), find(letters)) == ([], 0, [])
    assert letters.take(want, replay=True) == 0


def test_large_dead_letters_are_read_one_by_one(queue: SqlQueue) -> None:
    body = {"pad": "x" * 400_000}
    queue.publish(body, body, body)
    link = queue.link()
    for delivery in queue.take(link, 3):
        headers = own_headers.make_dead_letter_headers(
            delivery.message, QUEUE, QUEUE, "large", None, time.time()
        )
        link.forward([Forward(delivery, Lane.DEAD, headers, expires=600.0)])
    letters = queue.broker.dead_letters(queue.plan)
    assert [len(letter.message.raw) > 400_000 for letter in letters] == [True] * 3


def test_columns_say_which_error_and_where(database_url: str, queue: SqlQueue) -> None:
    bury(queue, raised(ValueError("no: such card")), "refused", key="k", priority=3)
    rows = execute(
        database_url,
        "SELECT error, place, consumer, key, rank, size FROM qconsume_dead ORDER BY id",
    )
    (error, place, consumer, key, rank, size), (no_error, no_place, *_) = rows
    assert (error, consumer, key, rank) == ("builtins.ValueError", "billing", "k", -3)
    assert f"{__file__}:"[-100:] in place
    assert place.endswith(" in raised")
    assert size > 500
    assert (no_error, no_place) == (None, None)


def test_the_place_is_in_the_code_of_the_app() -> None:
    def format(*files: str) -> str:
        frames = [traceback.FrameSummary(file, 7, "call") for file in files]
        lines = traceback.StackSummary.from_list(frames).format()
        return "Traceback (most recent call last):\n" + "".join(lines) + "Boom: no"

    def find_place(*files: str) -> str | None:
        return dead_columns._find_place({own_headers.TRACEBACK: format(*files)})

    library = "/usr/lib/python3.12/json/decoder.py"
    package = "/x/site-packages/requests/api.py"
    assert find_place("/shop/orders.py", package) == "/shop/orders.py:7 in call"
    assert find_place("/shop/a.py", "/shop/b.py", library) == "/shop/b.py:7 in call"
    assert find_place(dead_columns.__file__, library) == f"{library}:7 in call"
    assert dead_columns._find_place({own_headers.TRACEBACK: "nothing"}) is None
    assert len(find_place(f"/{'x' * 500}.py") or "") == 200


# -- replay and purge ------------------------------------------------------------------


def test_a_replay_keeps_rank_and_key_and_not_the_expiry(
    database_url: str, queue: SqlQueue
) -> None:
    letters = bury(queue, "a", "b", key="k", priority=4, expires=600.0)
    assert letters.take(want, replay=True) == 2
    rows = execute(
        database_url,
        "SELECT rank, key, expires, due, owner FROM qconsume_message ORDER BY id",
    )
    assert rows == [(-4, "k", None, None, None)] * 2
    first, second = queue.take(queue.link(), 2)
    assert bodies([first, second]) == [b"0", b"1"]
    assert (first.message.key, first.message.priority) == ("k", 4)
    assert (first.message.attempt, first.message.deaths) == (1, 0)
    assert own_headers.REASON not in first.message.headers
    assert letters.count() == 0


def test_many_are_replayed_in_their_order(queue: SqlQueue) -> None:
    letters = bury(queue, *["a"] * 450)
    progress = itertools.count()

    def is_even(letter: DeadLetter) -> bool:
        return int(letter.message.raw) % 2 == 0

    assert letters.take(is_even, True, lambda: next(progress)) == 225
    assert next(progress) == 450
    assert letters.count() == 225
    taken = queue.take(queue.link(), 225)
    assert [int(each.message.raw) for each in taken] == list(range(0, 450, 2))


def test_two_replays_at_once_send_each_once(queue: SqlQueue) -> None:
    letters = bury(queue, *["a"] * 300)
    barrier = threading.Barrier(2)
    counts: list[int] = []

    def replay() -> None:
        barrier.wait(20)
        counts.append(letters.take(want, replay=True))

    threads = [threading.Thread(target=replay) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counts) == 300
    assert queue.broker.depth(QUEUE) == 300
    assert letters.count() == 0


def test_a_replay_wakes_a_reader(queue: SqlQueue) -> None:
    letters = bury(queue, "a")
    link = queue.link()
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(bodies(queue.take(link, 1))))
    reader.start()
    assert letters.take(want, replay=True) == 1
    reader.join(20)
    assert found == [b"0"]


def test_what_dies_during_a_replay_is_not_replayed_again(queue: SqlQueue) -> None:
    letters = bury(queue, *["a"] * 60)

    def die_again(letter: DeadLetter) -> bool:
        if int(letter.message.raw) == 59:
            bury(queue, "again", "again")
        return True

    assert letters.take(die_again, replay=True) == 60
    assert letters.count() == 2


def test_a_narrowed_purge_leaves_the_rest(queue: SqlQueue) -> None:
    letters = bury(queue, "full disk", "no card", "full disk")
    wanted = DeadLetterFilter(error="disk")
    narrow = letters.narrow(wanted)
    assert narrow.take(wanted, replay=False) == 2
    assert find(letters) == [1]


def test_a_message_with_odd_headers_can_die(queue: SqlQueue) -> None:
    """Other programs may write any text, also one that PostgreSQL cannot hold."""
    queue.broker.declare()
    headers = {
        own_headers.ERROR: "\0" + "e" * 5_000,
        own_headers.TRACEBACK: '  File "\0.py", line 1, in \0\n',
    }
    meta = json.dumps({"message_id": "\0" * 300, "headers": headers})
    row = {"queue": QUEUE, "meta": meta, "body": b"0"}
    database = queue.broker._shared.database
    database.write([Step(sa.insert(MESSAGE).values(**row))])
    letters = bury(queue, "\0", count=0)
    assert find(letters, error="\0eee") == [0]
    assert find(letters, ids=frozenset(["\0" * 300])) == [0]
    assert letters.take(want, replay=True) == 1
