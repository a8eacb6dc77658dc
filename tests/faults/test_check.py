"""The evaluation of ledgers finds losses, duplicates and reordering."""

from __future__ import annotations

from ..fleet.ledger import Line
from .check import Tally
from .check import find_longest_silence
from .check import find_out_of_order


def lines(*events: tuple[str, int], pid: int = 1, began: float = 0) -> list[Line]:
    """Make ledger lines, one per second."""
    return [
        Line(what, n, 1, pid, began + second) for second, (what, n) in enumerate(events)
    ]


def handled(*numbers: int, pid: int = 1) -> list[Line]:
    events = [(what, n) for n in numbers for what in ("start", "done")]
    return lines(*events, pid=pid)


def confirmed(*numbers: int) -> list[Line]:
    return lines(*(("confirmed", n) for n in numbers))


def tally(*found: list[Line]) -> Tally:
    made = Tally()
    for each in found:
        made.add(each)
    return made


def test_what_is_confirmed_and_never_handled_is_missing() -> None:
    assert tally(confirmed(0, 1, 2), handled(0, 2)).missing() == {1}


def test_what_was_begun_and_not_done_is_missing() -> None:
    assert tally(confirmed(0), lines(("start", 0))).missing() == {0}


def test_what_was_refused_may_be_missing_or_not() -> None:
    found = tally(confirmed(0), lines(("refused", 1), ("refused", 2)), handled(0, 2))

    assert found.missing() == set()
    assert found.refused == {1, 2}


def test_what_is_handled_twice_is_counted_when_it_is_again() -> None:
    found = tally(confirmed(0, 1), handled(0, 1, 0))

    assert (found.handled[0], found.handled[1]) == (2, 1)
    assert found.again == [5]


def test_order_is_kept_within_a_key() -> None:
    assert find_out_of_order(handled(0, 2, 1, 3), {0, 1, 2, 3}, keys=2) == []


def test_what_overtakes_its_predecessor_is_out_of_order() -> None:
    assert find_out_of_order(handled(2, 0, 1), {0, 1, 2}, keys=2) == [2]


def test_what_begins_beside_its_predecessor_is_out_of_order() -> None:
    found = lines(("start", 0), ("start", 2), ("done", 0), ("done", 2))

    assert find_out_of_order(found, {0, 2}, keys=2) == [2]


def test_what_comes_again_is_not_out_of_order() -> None:
    assert find_out_of_order(handled(0, 2, 0, 2, 4), {0, 2, 4}, keys=2) == []


def test_a_refused_message_is_not_waited_for() -> None:
    assert find_out_of_order(handled(2, 0), {2}, keys=2) == []


def test_a_lost_message_puts_its_successors_out_of_order() -> None:
    assert find_out_of_order(handled(0, 4), {0, 2, 4}, keys=2) == [4]


def test_the_longest_silence_reaches_from_end_to_end() -> None:
    assert find_longest_silence([3, 1, 7], 0, 8) == 4
    assert find_longest_silence([1, 2], 0, 10) == 8
    assert find_longest_silence([1, 20], 5, 10) == 5


def test_a_process_reached_a_number_when_it_first_handled_a_later_one() -> None:
    found = tally(handled(0, 3, pid=7), handled(1, 2, pid=8))

    assert found.reached(7, 1) == found.reached(7, 3) == 3
    assert found.reached(8, 2) == 3
    assert found.reached(8, 3) is None
    assert found.reached(9, 0) is None


def test_a_clock_that_was_set_by_hours_is_not_believed() -> None:
    found = tally(
        handled(0, 1),
        lines(("done", 2), pid=2, began=3_605),
        lines(("done", 3), pid=2, began=-3_595),
        lines(("done", 4), began=7),
    )

    assert found.times == [1, 3, 3, 3, 7]
    assert found.reached(2, 3) == 3
