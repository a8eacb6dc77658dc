"""Judges a worker by facts: is it live, is it ready, what is wrong with it? No I/O."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ...text import pluralize
from .facts import HealthLimits
from .facts import SubscriptionFacts
from .facts import WorkerFacts
from .verdict import Problem
from .verdict import SuspectBacklog
from .verdict import Verdict


def judge(worker: WorkerFacts, limits: HealthLimits) -> Verdict:
    """Return the verdict on a worker: is it live, is it ready, what is wrong?"""
    problems = [*_check_worker(worker, limits)]
    for facts in worker.subscriptions:
        problems += _check_subscription(facts, worker.stopping, limits)
    live = not any(problem.fatal for problem in problems)
    connected = all(facts.connected for facts in worker.subscriptions)
    ready = live and worker.started and not worker.stopping and connected
    suspects = tuple(each.suspects for each in worker.subscriptions if each.suspects)
    return Verdict(live, ready, tuple(problems), worker.blocked_for, suspects)


def _check_worker(worker: WorkerFacts, limits: HealthLimits) -> Iterable[Problem]:
    if worker.blocked_for >= limits.blocked:
        yield Problem(
            "blocked",
            "",
            f"One greenlet has let no other run for {worker.blocked_for:.0f} s, at"
            f" {worker.blocked_at}. No message, heartbeat or request is served"
            " meanwhile. If it computes, let it call 'gevent.sleep(0)' now and then, or"
            " move the work to 'gevent.get_hub().threadpool' or to another process; if"
            " it waits, it does so in code that gevent cannot patch.",
            fatal=True,
        )
    if worker.logging_for >= limits.blocked:
        yield Problem(
            "logging",
            "",
            f"A log handler has not returned for {worker.logging_for:.0f} s, and all"
            " code that logs waits for it. Give it a time limit, or have it write from"
            " a 'logging.handlers.QueueListener'.",
            fatal=True,
            logged=False,  # The line would wait for that handler, too.
        )
    if worker.slowed_for >= limits.stalled:
        yield _describe_slow_pace(worker)
    if not worker.started:
        yield _describe_start(worker, limits)
    if worker.stopping:
        yield Problem("stopping", "", "The worker is stopping.", logged=False)


def _describe_start(worker: WorkerFacts, limits: HealthLimits) -> Problem:
    if worker.starting_for < limits.starting:
        text = "The worker has not started yet."
        return Problem("starting", "", text, logged=False)
    return Problem(
        "starting",
        "",
        f"The worker has been starting for {worker.starting_for:.0f} s: a"
        " 'before_worker' hook does not end. Raise 'QCONSUME_START_TIMEOUT' if the hook"
        " takes longer on purpose.",
        fatal=True,
    )


def _describe_slow_pace(worker: WorkerFacts) -> Problem:
    return Problem(
        "slowed",
        "",
        f"Messages have been begun at the slowest pace for {worker.slowed_for:.0f} s,"
        " since web requests in this process have priority and the hub is"
        f" {worker.hub_latency * 1000:.0f} ms late. If messages pile up, run the"
        " consumers in a process of their own, by 'flask qconsume run', or give them"
        " more time by 'QCONSUME_HUB_LATENCY' and 'QCONSUME_LEAST_SHARE'.",
        level=logging.WARNING,
    )


def _check_subscription(
    facts: SubscriptionFacts, stopping: bool, limits: HealthLimits
) -> Iterable[Problem]:
    if not stopping:
        yield from _check_consuming(facts, limits)
    if facts.overdue:
        yield _describe_overdue(facts)
    if facts.unsettled_for >= limits.stalled:
        yield _describe_unsettled(facts)
    if facts.parks:
        yield Problem(
            "parked",
            facts.name,
            f"{facts.name}: its dead-letter queue refuses dead letters, which wait as"
            " retries meanwhile. Nothing is lost, and other messages are handled; make"
            " room by 'flask qconsume dead-letters', or raise the queue's limit.",
            logged=False,
        )
    if facts.suspects and (facts.suspects.oldest or 0.0) >= limits.stalled:
        yield _describe_suspects(facts.suspects, facts.queue)


def _check_consuming(
    facts: SubscriptionFacts, limits: HealthLimits
) -> Iterable[Problem]:
    if not facts.tended:
        yield Problem(
            "ended",
            facts.name,
            f"{facts.name}: a greenlet that keeps it running has ended by an error, so"
            " it consumes nothing any more. Restart the process, and report the error"
            " above.",
            fatal=True,
        )
    if not facts.connected:
        text = f"{facts.name}: not connected to the queue '{facts.queue}'."
        yield Problem("disconnected", facts.name, text, logged=False)
    if facts.stuck_for >= limits.stalled:
        yield Problem(
            "stuck",
            facts.name,
            f"{facts.name}: a message has waited for a handler for"
            f" {facts.stuck_for:.0f} s, although fewer than {facts.concurrency} are"
            " being handled. Restart the process: the message will be delivered again.",
            fatal=True,
        )
    if facts.starved_for >= limits.stalled:
        yield Problem(
            "starved",
            facts.name,
            f"{facts.name}: connected, but it has read nothing for"
            f" {facts.starved_for:.0f} s although the queue '{facts.queue}' has"
            f" {pluralize(facts.backlog, 'message')}. Restart the process; if it"
            " happens again, look at the queue's consumers on the broker.",
            fatal=True,
        )


def _describe_overdue(facts: SubscriptionFacts) -> Problem:
    return Problem(
        "overdue",
        facts.name,
        f"{facts.name}: {pluralize(facts.overdue, 'handler')} far beyond the time limit"
        f" of {facts.timeout:g} s. New handlers took their places, and their messages"
        " went to the retry policy. Let handlers pass on 'HandlerTimeout'.",
        # A few handlers that hang do little harm; a full set calls for a restart.
        fatal=facts.overdue >= facts.concurrency,
        logged=False,
    )


def _describe_unsettled(facts: SubscriptionFacts) -> Problem:
    begin = (
        f"{facts.name}: handled {pluralize(facts.unsettled, 'message')} and could not"
        f" settle for {facts.unsettled_for:.0f} s"
    )
    if facts.retries_forwards or not facts.connected:
        text = (
            f"{begin}: the broker does not take them. They are not lost, and it is"
            " tried again; see the errors above, and look at the broker's disk, memory"
            " and limits."
        )
        return Problem("unsettled", facts.name, text)
    text = (
        f"{begin}, although the connection is there. Restart the process: they will be"
        " handled once more."
    )
    return Problem("unsettled", facts.name, text, fatal=True)


def _describe_suspects(suspects: SuspectBacklog, queue: str) -> Problem:
    behind = f", and {suspects.waiting} more wait" if suspects.waiting else ""
    return Problem(
        "suspects",
        suspects.consumer,
        f"{suspects.consumer}: a suspect in '{queue}' has been one for"
        f" {suspects.oldest:.0f} s{behind}. Each process handles one suspect at a time:"
        " start more processes, or give the consumer a shorter 'timeout' if this"
        " message takes long. The logs tell why processes die; 'flask qconsume status'"
        " shows how many suspects are left.",
    )
