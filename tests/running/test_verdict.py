"""Facts are judged: the verdict says live or not, ready or not, and why."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest

from flask_qconsume.running.health.condition_timer import ConditionTimer
from flask_qconsume.running.health.facts import HealthLimits
from flask_qconsume.running.health.facts import SubscriptionFacts
from flask_qconsume.running.health.facts import WorkerFacts
from flask_qconsume.running.health.judge import judge
from flask_qconsume.running.health.starvation import ANSWERS
from flask_qconsume.running.health.starvation import Starvation
from flask_qconsume.running.health.verdict import Problem
from flask_qconsume.running.health.verdict import SuspectBacklog
from flask_qconsume.running.health.verdict import Verdict
from flask_qconsume.running.health.verdict import combine

FINE = SubscriptionFacts(
    name="orders.bill",
    queue="bill",
    connected=True,
    tended=True,
    timeout=600.0,
    overdue=0,
    concurrency=3,
    unsettled=0,
    unsettled_for=0.0,
    retries_forwards=False,
    parks=False,
    stuck_for=0.0,
    starved_for=0.0,
    backlog=0,
)
RUNS = WorkerFacts(0.0, "", started=True, stopping=False, subscriptions=(FINE,))
LIMITS = HealthLimits(blocked=10.0, stalled=120.0, starting=60.0)


def judged(**changes: t.Any) -> Verdict:
    """The verdict on one subscription without problems except for these changes."""
    facts = dataclasses.replace(FINE, **changes)
    return judge(dataclasses.replace(RUNS, subscriptions=(facts,)), LIMITS)


def test_a_worker_with_nothing_wrong_is_live_and_ready() -> None:
    assert judge(RUNS, LIMITS) == Verdict(live=True, ready=True)


@pytest.mark.parametrize("changes", [{"started": False}, {"stopping": True}])
def test_a_worker_that_starts_or_stops_is_live_and_not_ready(
    changes: dict[str, bool],
) -> None:
    verdict = judge(dataclasses.replace(RUNS, **changes), LIMITS)
    assert (verdict.live, verdict.ready) == (True, False)
    assert not any(problem.logged for problem in verdict.problems)


def test_a_start_that_does_not_end_is_shown() -> None:
    starting = dataclasses.replace(RUNS, started=False, starting_for=60.0)
    verdict = judge(starting, LIMITS)
    assert (verdict.live, verdict.ready) == (False, False)
    (problem,) = verdict.problems
    assert problem.logged
    assert "starting for 60 s: a 'before_worker' hook does not end" in problem.text


def test_a_log_handler_that_hangs_makes_it_not_live() -> None:
    verdict = judge(dataclasses.replace(RUNS, logging_for=10.0), LIMITS)
    assert (verdict.live, verdict.ready) == (False, False)
    assert "A log handler has not returned for 10 s" in verdict.problems[0].text
    assert judge(dataclasses.replace(RUNS, logging_for=9.0), LIMITS).live


def test_the_time_of_a_blocked_hub_is_part_of_the_json() -> None:
    """Except for a moment, which is normal for a hub."""
    for seconds, told in ((1.0, 0.0), (4.0, 4.0)):
        verdict = judge(dataclasses.replace(RUNS, blocked_for=seconds), LIMITS)
        assert Verdict.from_json(verdict.to_json()).blocked_for == told
    with pytest.raises(ValueError):
        Verdict.from_json('{"live": 1, "ready": 1, "wrong": 5}')


def test_a_full_dead_letter_queue_is_shown_and_no_reason_to_restart() -> None:
    verdict = judged(parks=True)
    assert (verdict.live, verdict.ready) == (True, True)
    assert "its dead-letter queue refuses dead letters" in verdict.to_json()


def test_an_outage_of_the_broker_is_no_reason_to_restart() -> None:
    verdict = judged(connected=False, unsettled=3, unsettled_for=10_000.0)
    assert (verdict.live, verdict.ready) == (True, False)
    assert "orders.bill: not connected to the queue 'bill'." in verdict.to_json()


def test_a_broker_that_takes_nothing_is_no_reason_either() -> None:
    verdict = judged(retries_forwards=True, unsettled=3, unsettled_for=130.0)
    assert (verdict.live, verdict.ready) == (True, True)
    assert "handled 3 messages and could not settle for 130 s" in verdict.to_json()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tended": False}, "a greenlet that keeps it running has ended by an error"),
        ({"unsettled": 3, "unsettled_for": 120.0}, "although the connection is there"),
        (
            {"starved_for": 120.0, "backlog": 57},
            "although the queue 'bill' has 57 messages",
        ),
        (
            {"stuck_for": 120.0},
            "waited for a handler for 120 s, although fewer than 3 are being handled",
        ),
        ({"overdue": 3}, "3 handlers far beyond the time limit of 600 s"),
    ],
)
def test_a_problem_that_does_not_end_by_itself_is_a_reason(
    changes: dict[str, t.Any], said: str
) -> None:
    verdict = judged(**changes)
    assert (verdict.live, verdict.ready) == (False, False)
    assert said in verdict.to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"unsettled": 3, "unsettled_for": 119.0},
        {"starved_for": 119.0},
        {"stuck_for": 119.0},
        {"overdue": 2},
    ],
)
def test_short_of_the_limit_it_is_fine(changes: dict[str, t.Any]) -> None:
    assert judged(**changes).live


def test_a_blocked_hub_is_shown_with_its_place() -> None:
    blocked = dataclasses.replace(
        RUNS, blocked_for=10.0, blocked_at="shop.py:7 in 'bill'"
    )
    verdict = judge(blocked, LIMITS)
    assert (verdict.live, verdict.ready) == (False, False)
    assert "let no other run for 10 s, at shop.py:7 in 'bill'" in verdict.to_json()
    assert judge(dataclasses.replace(blocked, blocked_for=9.9), LIMITS).live


def test_a_stopping_worker_is_not_judged_by_what_it_reads() -> None:
    facts = dataclasses.replace(FINE, tended=False, starved_for=999.0, connected=False)
    stopping = dataclasses.replace(RUNS, stopping=True, subscriptions=(facts,))
    assert judge(stopping, LIMITS).live


def test_the_slowest_pace_for_long_is_shown_and_no_reason_to_restart() -> None:
    slowed = dataclasses.replace(RUNS, slowed_for=LIMITS.stalled, hub_latency=0.025)
    verdict = judge(slowed, LIMITS)
    assert (verdict.live, verdict.ready) == (True, True)
    (problem,) = verdict.problems
    assert "for 120 s" in problem.text
    assert "25 ms late" in problem.text
    shorter = dataclasses.replace(
        RUNS, slowed_for=LIMITS.stalled - 1, hub_latency=0.025
    )
    assert judge(shorter, LIMITS).problems == ()


def test_a_condition_is_over_with_the_first_look_that_does_not_find_it() -> None:
    timer = ConditionTimer(interval=2.0)
    looks = (False, True, True, True, False, True)
    found = [timer.look(["slowed"] if look else []) for look in looks]
    assert found == [0, 0, 2, 4, 0, 0]


def test_a_value_that_does_not_change_is_a_condition() -> None:
    timer = ConditionTimer(1.0)
    assert timer.look([1], 1.0) == 0.0
    assert timer.look([1], 1.0) == 1.0
    assert timer.look([1], 1.1) == 2.1
    # While the machine slept, the value could not change.
    assert timer.look([1], 30_000.0) == 4.1
    assert timer.look([2], 1.0) == 0.0


def test_of_several_conditions_the_oldest_counts() -> None:
    timer = ConditionTimer(1.0)
    assert timer.look(["a"]) == 0
    assert timer.look(["a", "b"]) == 1
    assert timer.look(["b", "c"]) == 1
    assert timer.look(["c"]) == 1
    assert timer.look([]) == 0


def test_starvation_is_messages_that_wait_while_nothing_is_read() -> None:
    starvation = Starvation(stalled=30.0)
    assert starvation.look(0.0, received=5, idle=True) is False
    now = 0.0
    for found in range(1, ANSWERS + 1):
        now += 10.0
        assert starvation.look(now - 0.1, received=5, idle=True) is False
        assert starvation.look(now, received=5, idle=True) is True
        starvation.note_backlog(now, 7)
        assert (starvation.seconds, starvation.backlog) == (10.0 * found, 7)
    assert starvation.seconds == 30.0


@pytest.mark.parametrize("what", ["read one", "busy", "nothing waits"])
def test_starvation_ends(what: str) -> None:
    starvation = Starvation(stalled=30.0)
    starvation.look(0.0, received=5, idle=True)
    starvation.look(10.0, received=5, idle=True)
    starvation.note_backlog(10.0, 7)
    if what == "nothing waits":
        starvation.note_backlog(20.0, 0)
    else:
        starvation.look(20.0, received=5 + (what == "read one"), idle=what != "busy")
    assert starvation.seconds == 0.0


def test_a_verdict_can_be_read_from_its_json() -> None:
    verdict = judged(connected=False)
    told = Verdict.from_json(verdict.to_json())
    assert (told.live, told.ready) == (True, False)
    assert [each.text for each in told.problems] == [verdict.problems[0].text]


@pytest.mark.parametrize("text", ["", "[]", "5", '{"live": true}', "nonsense"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Verdict.from_json(text)


def test_no_message_forges_a_line() -> None:
    problem = Problem("x", "", "a\n2026 ERROR forged\x1b[2J")
    assert "\n" not in Verdict(True, True, (problem,)).to_json()


def test_several_processes_have_one_verdict() -> None:
    good = Verdict(live=True, ready=True)
    away = judged(connected=False)
    dead = judged(tended=False)
    assert combine({"1": good, "2": good}) == good
    assert not any(each.logged for each in combine({"1": None}).problems)
    assert (combine({"1": good, "2": None}).live, combine({"2": None}).ready) == (
        True,
        False,
    )
    assert combine({"1": good, "2": away}).live is True
    assert combine({"1": good, "2": away}).ready is False
    both = combine({"process 1": good, "process 2": dead})
    assert both.live is False
    assert both.problems[0].text.startswith("process 2: orders.bill: ")


WAITS = SuspectBacklog("orders.bill", waiting=4, oldest=130.04)


def test_suspects_are_shown_and_change_nothing() -> None:
    young = SuspectBacklog("orders.bill", waiting=4, oldest=119.0)
    verdict = judged(suspects=young)
    assert verdict == Verdict(live=True, ready=True)
    assert json.loads(verdict.to_json())["suspects"] == {
        "orders.bill": {"waiting": 4, "oldest": 119.0}
    }
    assert Verdict.from_json(verdict.to_json()).suspects == (young,)
    unknown = judged(suspects=SuspectBacklog("orders.bill", None, None))
    assert Verdict.from_json(unknown.to_json()).suspects[0].oldest is None


def test_suspects_that_wait_long_are_shown_with_what_to_do() -> None:
    verdict = judged(suspects=WAITS, queue="bill.suspects")
    assert (verdict.live, verdict.ready) == (True, True)
    (problem,) = verdict.problems
    assert problem.logged
    assert problem.text.startswith(
        "orders.bill: a suspect in 'bill.suspects' has been one for 130 s, and 4 more"
    )
    assert "start more processes" in problem.text


def test_several_processes_report_the_same_suspects() -> None:
    one = judged(suspects=SuspectBacklog("bill", waiting=3, oldest=None))
    other = judged(suspects=SuspectBacklog("bill", waiting=2, oldest=7.0))
    both = combine({"1": one, "2": other, "3": None})
    assert both.suspects == (SuspectBacklog("bill", waiting=3, oldest=7.0),)


@pytest.mark.parametrize(
    "suspects", ['{"a": {}}', '{"a": 5}', "[]", "5", '{"a": {"waiting": 1}}']
)
def test_malformed_suspects_are_refused(suspects: str) -> None:
    with pytest.raises(ValueError):
        Verdict.from_json(f'{{"live": 1, "ready": 1, "suspects": {suspects}}}')
