"""A run: faults one after the other on one broker, under load, and their record.

Faults that kill workers start new ones. A worker that ends otherwise fails the run.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import random
import subprocess
import threading
import time
import traceback
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass
from unittest import mock

from flask_qconsume.extension import AppConsumers

from ..fleet.app import create_app
from ..fleet.ledger import Ledger
from ..fleet.ledger import Writer
from ..fleet.workers import Fleet
from ..waiting import wait_for
from .check import Tally
from .check import find_longest_silence
from .check import find_out_of_order
from .fault import KAFKA
from .fault import Fault
from .fault import FaultTarget
from .publishing import BATCH
from .publishing import KEYS
from .publishing import Publishing
from .record import FaultRecord
from .record import RunRecord
from .setups import BrokerSetup
from .verdict import attribute_losses
from .verdict import judge_faults

#: Seconds within which consuming resumes after a fault, without detection: the longest
#: reconnect interval with its jitter, see `running/reconnect.py`, and half as much for
#: a busy machine (a starting worker imports for seconds, and has a backlog).
ALLOWED_SECONDS = 30.0 + 15.0
#: Most messages that are published and not handled.
MAX_UNHANDLED = 1_000
#: Messages in flight per worker: its prefetch, and one suspect.
MAX_HELD = 20 + 1
#: Seconds without any message after which missing ones count as lost; and the same for
#: messages that a fault may have lost.
GIVEN_UP_SECONDS = 60.0
QUIET_SECONDS = 10.0

_LIBRARIES = (
    "SQLAlchemy",
    "amqp",
    "confluent-kafka",
    "flask",
    "gevent",
    "kombu",
    "psycopg",
    "redis",
)


@dataclass(frozen=True)
class Plan:
    """The plan of a run, which follows from its seed."""

    seed: int
    faults: Sequence[Fault]
    #: The least number of messages, and the most per second.
    messages: int
    rate: float = 1_500.0
    workers: int = 2
    #: Most seconds between two faults.
    calm: float = 1.5
    #: Seconds within which consuming resumes after a fault, without detection.
    allowed: float = ALLOWED_SECONDS
    #: The command that repeats the run.
    command: str = ""


class Run:
    """One run of a plan on one broker.

    :param folder: Folder for ledgers and the workers' output.
    :param say: Called with a line of progress after each fault.
    """

    def __init__(
        self,
        setup: BrokerSetup,
        plan: Plan,
        folder: pathlib.Path,
        say: t.Callable[[str], object] = print,
    ) -> None:
        self._setup = setup
        self._plan = plan
        self._say = say
        self._began = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        self._fleet = Fleet(folder, {"BROKER_URL": setup.url, **setup.config})
        self._published = Ledger(folder / "published")
        #: A reader of its own, since each reader returns a line once, and faults read
        #: the workers' ledger too.
        self._handled = Ledger(self._fleet.ledger.path)
        self._tally = Tally()
        self._reading = threading.Lock()
        self._expected_dead: set[int] = set()
        #: Pairs: messages below this number may be lost by the fault with this index.
        self._may_be_lost: list[tuple[int, int]] = []
        self._consumers = self._make_publisher()
        self._writer = Writer(self._published.path)
        self._publishing = Publishing(
            self._consumers, self._writer, plan.rate, self._is_full
        )
        self._target = FaultTarget(
            broker=setup.name,
            server=setup.server,
            vhost=setup.vhost,
            database=setup.database,
            proxies=setup.proxies,
            fleet=self._fleet,
            consumers=self._consumers,
            send=self._send,
        )
        self.record = RunRecord(
            broker=setup.name,
            title=setup.title,
            seed=plan.seed,
            command=plan.command,
            versions=_versions(),
            workers=plan.workers,
        )

    def execute(self) -> RunRecord:
        """Run the plan; errors are in the record."""
        try:
            self._run_plan()
        except Exception as error:
            self._note_error(error)
        finally:
            self._close()
        self._judge()
        self._consumers.close()
        return self.record

    def _note_error(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error)).strip()
        self.record.problems.append(text)

    def _make_publisher(self) -> AppConsumers:
        with mock.patch.dict(os.environ, self._fleet.environment()):
            return t.cast(AppConsumers, create_app().extensions["qconsume"])

    # -- the run ----------------------------------------------------------------------

    def _run_plan(self) -> None:
        for _ in range(self._plan.workers):
            self._target.workers.append(self._fleet.start())
        self._publishing.start()
        for index, fault in enumerate(self._plan.faults):
            self._provoke(index, fault)
        wait_for(self._has_published_enough, 3_600, interval=0.1)
        self._publishing.stop()
        wait_for(self._is_finished, 3_600, interval=0.1)
        self._stop_workers()

    def _provoke(self, index: int, fault: Fault) -> None:
        """Provoke one fault while all workers consume, and wait until they do again."""
        chance = random.Random(f"{self._plan.seed} {self._setup.name} {index}")
        self._await_consuming(self._plan.allowed)
        FaultTarget.last(chance.uniform(0.3, 1) * self._plan.calm)
        self._target.noticed = None
        began = time.time()
        problem = self._apply(fault, chance)
        over = time.time()
        if fault.may_lose:
            # Not by time, since a confirmation is noted some time after it came.
            self._may_be_lost.append((self._publishing.next, index))
        allowed = self._plan.allowed + fault.detection
        resumed = self._await_consuming(2 * allowed)
        found = FaultRecord(
            index,
            fault.name,
            fault.may_lose,
            began=began - self._began,
            lasted=over - began,
            resumed=resumed,
            allowed=allowed,
            noticed=self._target.noticed,
            problem=problem,
            returns=fault.returns,
        )
        self.record.faults.append(found)
        self._say(f"{self._setup.name} {_format_fault(found, len(self._plan.faults))}")
        self._check_workers()

    def _apply(self, fault: Fault, chance: random.Random) -> str:
        """Apply a fault; return a text about an expected effect that did not come."""
        try:
            fault.apply(self._target, chance)
        except AssertionError as error:
            return str(error)
        finally:
            for proxy in self._setup.proxies:
                proxy.mend()
        return ""

    def _await_consuming(self, timeout: float) -> float | None:
        """Return the seconds until every worker has handled a new message."""
        began, number = time.time(), self._publishing.next

        def reached() -> list[float]:
            self._check_workers()
            self._read_ledgers()
            found = [
                self._tally.reached(each.pid, number) for each in self._target.workers
            ]
            return [] if None in found else t.cast(list[float], found)

        try:
            return max(wait_for(reached, timeout, interval=0.05)) - began
        except AssertionError:
            return None

    def _check_workers(self) -> None:
        for worker in self._target.workers:
            if worker.poll() is not None:
                raise RunFailed(f"a worker ended by itself: {_describe_end(worker)}")
        if self._publishing.problem is not None:
            raise self._publishing.problem

    def _stop_workers(self) -> None:
        self._check_workers()
        codes = [self._fleet.term(each) for each in self._target.workers]
        if any(codes):
            self.record.problems.append(f"workers ended with {codes} when told to stop")

    def _close(self) -> None:
        self._publishing.stop()
        self._read_ledgers()
        self._fleet.close()
        self._writer.close()

    def _send(self, **body: t.Any) -> int:
        number = self._publishing.send(**body)
        self._expected_dead.add(number)
        return number

    # -- what has happened ------------------------------------------------------------

    def _read_ledgers(self) -> None:
        with self._reading:
            self._tally.add(self._published.fresh())
            self._tally.add(self._handled.fresh())

    def _is_full(self) -> bool:
        self._read_ledgers()
        return self._tally.open - len(self._find_excused()) > MAX_UNHANDLED

    def _find_excused(self) -> dict[int, int]:
        """Return missing messages that may be lost, with the index of their fault."""
        if not self._may_be_lost:
            return {}
        with self._reading:
            missing = self._tally.missing()
        return {
            n: next(index for number, index in self._may_be_lost if n < number)
            for n in missing
            if n < self._may_be_lost[-1][0]
        }

    def _has_published_enough(self) -> bool:
        self._check_workers()
        return self._publishing.confirmed >= self._plan.messages

    def _is_finished(self) -> bool:
        """Return whether all messages were handled, or none for a long time."""
        self._check_workers()
        self._read_ledgers()
        missing = self._tally.missing()
        quiet = time.time() - max(self._tally.times, default=self._began)
        if quiet > GIVEN_UP_SECONDS or not missing:
            return True
        excused = self._find_excused().keys()
        if excused and quiet < QUIET_SECONDS:
            return False
        missing -= excused
        return not missing or (
            missing <= self._expected_dead and missing <= self._find_dead()
        )

    def _find_dead(self) -> set[int]:
        """Return the numbers of the dead letters."""
        plan = self._consumers.topology.queue("work")
        letters = self._consumers.broker.dead_letters(plan)
        return {json.loads(each.message.raw)["n"] for each in letters}

    # -- the verdict ------------------------------------------------------------------

    def _judge(self) -> None:
        record, tally = self.record, self._tally
        dead = self._find_dead()
        lost = tally.missing() - dead
        if lost:
            plan = self._consumers.topology.queue("work")
            broker = self._consumers.broker
            record.stuck = broker.depth(plan.name) + broker.depth(plan.suspects)
        record.seconds = time.time() - self._began
        record.messages = len(tally.confirmed)
        record.refused = len(tally.refused)
        record.dead_expected, record.dead = (
            len(dead & self._expected_dead),
            len(dead - self._expected_dead),
        )
        record.lost = len(lost)
        record.duplicated = len(tally.again)
        if record.faults and tally.times:
            record.silence = find_longest_silence(
                tally.times, min(tally.times), max(tally.times)
            )
        if self._setup.ordered:
            lines = Ledger(self._fleet.ledger.path).fresh()
            record.reordered = len(find_out_of_order(lines, tally.confirmed, KEYS))
        judge_faults(record.faults, tally, self._began, self._count_in_flight())
        attribute_losses(record.faults, tally, self._began, lost, self._find_excused())

    def _count_in_flight(self) -> int:
        """Return how many messages a loss of all connections may repeat."""
        held = self._plan.workers * MAX_HELD + BATCH
        # Kafka's client fetched more: handled messages that it cannot commit any more.
        return held + MAX_UNHANDLED if self._setup.name in KAFKA else held


class RunFailed(Exception):
    """The run cannot continue."""


def _format_fault(fault: FaultRecord, count: int) -> str:
    """Return a line about a fault that is over."""
    resumed = "never" if fault.resumed is None else f"after {fault.resumed:.1f} s"
    noticed = "" if fault.noticed is None else f", noticed after {fault.noticed:.1f} s"
    return (
        f"{fault.index + 1}/{count} {fault.name}: {fault.lasted:.1f} s{noticed},"
        f" consuming resumed {resumed} ({fault.allowed:g} s allowed)"
        f"{fault.problem and f'; {fault.problem}'}"
    )


def _describe_end(worker: subprocess.Popen[bytes]) -> str:
    output: pathlib.Path = worker.output  # type: ignore[attr-defined]
    return f"exit code {worker.returncode}\n{output.read_text()[-2000:]}"


def _versions() -> dict[str, str]:
    import flask_qconsume

    found = {"Python": platform.python_version()}
    found["flask_qconsume"] = flask_qconsume.__version__
    return found | {name: importlib.metadata.version(name) for name in _LIBRARIES}
