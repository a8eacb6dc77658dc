"""Live or not, ready or not: facts in, a verdict out."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest

from flask_qconsume.running.health.verdict import LOOKS
from flask_qconsume.running.health.verdict import Facts
from flask_qconsume.running.health.verdict import Hunger
from flask_qconsume.running.health.verdict import Lane
from flask_qconsume.running.health.verdict import Limits
from flask_qconsume.running.health.verdict import Settling
from flask_qconsume.running.health.verdict import Silence
from flask_qconsume.running.health.verdict import Slowness
from flask_qconsume.running.health.verdict import Snapshot
from flask_qconsume.running.health.verdict import Trouble
from flask_qconsume.running.health.verdict import Verdict
from flask_qconsume.running.health.verdict import judge
from flask_qconsume.running.health.verdict import together

FINE = Facts(
    name="orders.bill",
    queue="bill",
    connected=True,
    tended=True,
    limit=600.0,
    late=0,
    concurrency=3,
    unsettled=0,
    unsettled_for=0.0,
    put_off=False,
    parks=False,
    stuck_for=0.0,
    hungry_for=0.0,
    backlog=0,
)
RUNS = Snapshot(0.0, "", started=True, stopping=False, subscriptions=(FINE,))
LIMITS = Limits(blocked=10.0, stalled=120.0, starting=60.0)


def judged(**changes: t.Any) -> Verdict:
    """The verdict on one subscription that is fine but for this."""
    facts = dataclasses.replace(FINE, **changes)
    return judge(dataclasses.replace(RUNS, subscriptions=(facts,)), LIMITS)


def test_a_worker_with_nothing_wrong_is_live_and_ready() -> None:
    assert judge(RUNS, LIMITS) == Verdict(live=True, ready=True)


@pytest.mark.parametrize("changes", [{"started": False}, {"stopping": True}])
def test_one_that_starts_or_stops_is_live_and_not_ready(
    changes: dict[str, bool],
) -> None:
    verdict = judge(dataclasses.replace(RUNS, **changes), LIMITS)
    assert (verdict.live, verdict.ready) == (True, False)
    assert not any(trouble.logged for trouble in verdict.troubles)


def test_a_start_that_does_not_end_is_told() -> None:
    starting = dataclasses.replace(RUNS, started=False, starting_for=60.0)
    verdict = judge(starting, LIMITS)
    assert (verdict.live, verdict.ready) == (False, False)
    (trouble,) = verdict.troubles
    assert trouble.logged
    assert "starting for 60 s: a 'before_worker' hook does not end" in trouble.text


def test_a_log_handler_that_hangs_makes_it_not_live() -> None:
    verdict = judge(dataclasses.replace(RUNS, logging_for=10.0), LIMITS)
    assert (verdict.live, verdict.ready) == (False, False)
    assert "A log handler has not returned for 10 s" in verdict.troubles[0].text
    assert judge(dataclasses.replace(RUNS, logging_for=9.0), LIMITS).live


def test_for_how_long_the_hub_has_not_run_crosses_a_wire() -> None:
    """Not for a moment, as every hub has some."""
    for seconds, told in ((1.0, 0.0), (4.0, 4.0)):
        verdict = judge(dataclasses.replace(RUNS, silent_for=seconds), LIMITS)
        assert Verdict.from_json(verdict.to_json()).blocked_for == told
    with pytest.raises(ValueError):
        Verdict.from_json('{"live": 1, "ready": 1, "wrong": 5}')


def test_a_full_dead_letter_queue_is_told_and_no_reason_to_start_anew() -> None:
    verdict = judged(parks=True)
    assert (verdict.live, verdict.ready) == (True, True)
    assert "its dead-letter queue refuses dead letters" in verdict.to_json()


def test_an_outage_of_the_broker_is_no_reason_to_start_anew() -> None:
    verdict = judged(connected=False, unsettled=3, unsettled_for=10_000.0)
    assert (verdict.live, verdict.ready) == (True, False)
    assert "orders.bill: not connected to the queue 'bill'." in verdict.to_json()


def test_a_broker_that_takes_nothing_is_no_reason_either() -> None:
    verdict = judged(put_off=True, unsettled=3, unsettled_for=130.0)
    assert (verdict.live, verdict.ready) == (True, True)
    assert "handled 3 messages and could not settle for 130 s" in verdict.to_json()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tended": False}, "what looks after it has ended by an error"),
        ({"unsettled": 3, "unsettled_for": 120.0}, "although the connection is there"),
        (
            {"hungry_for": 120.0, "backlog": 57},
            "although the queue 'bill' has 57 messages",
        ),
        (
            {"stuck_for": 120.0},
            "waited for a handler for 120 s, although fewer than 3 are being handled",
        ),
        ({"late": 3}, "3 handlers far beyond the time limit of 600 s"),
    ],
)
def test_what_does_not_end_by_itself_is(changes: dict[str, t.Any], said: str) -> None:
    verdict = judged(**changes)
    assert (verdict.live, verdict.ready) == (False, False)
    assert said in verdict.to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"unsettled": 3, "unsettled_for": 119.0},
        {"hungry_for": 119.0},
        {"stuck_for": 119.0},
        {"late": 2},
    ],
)
def test_short_of_the_limit_it_is_fine(changes: dict[str, t.Any]) -> None:
    assert judged(**changes).live


def test_a_blocked_hub_is_told_with_its_place() -> None:
    blocked = dataclasses.replace(RUNS, silent_for=10.0, where="shop.py:7 in 'bill'")
    verdict = judge(blocked, LIMITS)
    assert (verdict.live, verdict.ready) == (False, False)
    assert "let no other run for 10 s, at shop.py:7 in 'bill'" in verdict.to_json()
    assert judge(dataclasses.replace(blocked, silent_for=9.9), LIMITS).live


def test_a_stop_is_not_judged_by_what_it_reads_no_more() -> None:
    facts = dataclasses.replace(FINE, tended=False, hungry_for=999.0, connected=False)
    stopping = dataclasses.replace(RUNS, stopping=True, subscriptions=(facts,))
    assert judge(stopping, LIMITS).live


def test_giving_way_to_the_site_for_long_is_told_and_no_reason_to_start_anew() -> None:
    slowed = dataclasses.replace(RUNS, slowed_for=LIMITS.stalled, late=0.025)
    verdict = judge(slowed, LIMITS)
    assert (verdict.live, verdict.ready) == (True, True)
    (trouble,) = verdict.troubles
    assert "for 120 s" in trouble.text
    assert "25 ms late" in trouble.text
    shorter = dataclasses.replace(RUNS, slowed_for=LIMITS.stalled - 1, late=0.025)
    assert judge(shorter, LIMITS).troubles == ()


def test_slowness_is_over_with_the_first_look_that_finds_none() -> None:
    slowness = Slowness(interval=2.0)
    looks = (False, True, True, True, False, True)
    assert [slowness.look(look) for look in looks] == [0, 2, 4, 6, 0, 2]


def test_silence_is_what_did_not_move_while_we_looked() -> None:
    silence = Silence(1.0)
    assert silence.look(1, 1.0) == 0.0
    assert silence.look(1, 1.0) == 1.0
    assert silence.look(1, 1.1) == 2.1
    # A night's sleep of the machine is nobody's fault.
    assert silence.look(1, 30_000.0) == 4.1
    assert silence.look(2, 1.0) == 0.0


def test_settling_is_as_old_as_its_oldest() -> None:
    settling = Settling()
    assert settling.look(["a"]) == 0
    assert settling.look(["a", "b"]) == 1
    assert settling.look(["b", "c"]) == 1
    assert settling.look(["c"]) == 1
    assert settling.look([]) == 0


def test_hunger_is_messages_that_wait_while_nothing_is_read() -> None:
    hunger = Hunger(stalled=30.0)
    assert hunger.look(0.0, received=5, idle=True) is False
    now = 0.0
    for found in range(1, LOOKS + 1):
        now += 10.0
        assert hunger.look(now - 0.1, received=5, idle=True) is False
        assert hunger.look(now, received=5, idle=True) is True
        hunger.found(now, 7)
        assert (hunger.seconds, hunger.backlog) == (10.0 * found, 7)
    assert hunger.seconds == 30.0


@pytest.mark.parametrize("what", ["read one", "busy", "nothing waits"])
def test_hunger_ends(what: str) -> None:
    hunger = Hunger(stalled=30.0)
    hunger.look(0.0, received=5, idle=True)
    hunger.look(10.0, received=5, idle=True)
    hunger.found(10.0, 7)
    if what == "nothing waits":
        hunger.found(20.0, 0)
    else:
        hunger.look(20.0, received=5 + (what == "read one"), idle=what != "busy")
    assert hunger.seconds == 0.0


def test_a_verdict_crosses_a_wire() -> None:
    verdict = judged(connected=False)
    told = Verdict.from_json(verdict.to_json())
    assert (told.live, told.ready) == (True, False)
    assert [each.text for each in told.troubles] == [verdict.troubles[0].text]


@pytest.mark.parametrize("text", ["", "[]", "5", '{"live": true}', "nonsense"])
def test_what_is_no_verdict_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Verdict.from_json(text)


def test_no_message_forges_a_line() -> None:
    trouble = Trouble("x", "", "a\n2026 ERROR forged\x1b[2J")
    assert "\n" not in Verdict(True, True, (trouble,)).to_json()


def test_several_processes_are_judged_together() -> None:
    good = Verdict(live=True, ready=True)
    away = judged(connected=False)
    dead = judged(tended=False)
    assert together({"1": good, "2": good}) == good
    assert not any(each.logged for each in together({"1": None}).troubles)
    assert (together({"1": good, "2": None}).live, together({"2": None}).ready) == (
        True,
        False,
    )
    assert together({"1": good, "2": away}).live is True
    assert together({"1": good, "2": away}).ready is False
    both = together({"process 1": good, "process 2": dead})
    assert both.live is False
    assert both.troubles[0].text.startswith("process 2: orders.bill: ")


WAITS = Lane("orders.bill", waiting=4, oldest=130.04)


def test_lanes_are_told_and_harm_nobody() -> None:
    young = Lane("orders.bill", waiting=4, oldest=119.0)
    verdict = judged(lane=young)
    assert verdict == Verdict(live=True, ready=True)
    assert json.loads(verdict.to_json())["suspects"] == {
        "orders.bill": {"waiting": 4, "oldest": 119.0}
    }
    assert Verdict.from_json(verdict.to_json()).lanes == (young,)
    nobody_knows = judged(lane=Lane("orders.bill", None, None))
    assert Verdict.from_json(nobody_knows.to_json()).lanes[0].oldest is None


def test_a_lane_that_waits_long_is_told_with_what_to_do() -> None:
    verdict = judged(lane=WAITS, queue="bill.suspects")
    assert (verdict.live, verdict.ready) == (True, True)
    (trouble,) = verdict.troubles
    assert trouble.logged
    assert trouble.text.startswith(
        "orders.bill: a suspect in 'bill.suspects' has been one for 130 s, and 4 wait"
    )
    assert "start more processes" in trouble.text


def test_several_processes_see_one_lane() -> None:
    one = judged(lane=Lane("bill", waiting=3, oldest=None))
    other = judged(lane=Lane("bill", waiting=2, oldest=7.0))
    both = together({"1": one, "2": other, "3": None})
    assert both.lanes == (Lane("bill", waiting=3, oldest=7.0),)


@pytest.mark.parametrize(
    "suspects", ['{"a": {}}', '{"a": 5}', "[]", "5", '{"a": {"waiting": 1}}']
)
def test_lanes_that_are_none_are_refused(suspects: str) -> None:
    with pytest.raises(ValueError):
        Verdict.from_json(f'{{"live": 1, "ready": 1, "suspects": {suspects}}}')
