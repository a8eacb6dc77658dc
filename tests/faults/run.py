"""Runs faults one after the other on one broker, under load, and records what they did.

Only what kills workers has them replaced; one that ends by itself fails the run.
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
from .check import longest_silence
from .check import out_of_order
from .fault import KAFKA
from .fault import Fault
from .fault import Scene
from .places import Place
from .publishing import BATCH
from .publishing import KEYS
from .publishing import Publishing
from .record import FaultRecord
from .record import RunRecord
from .verdict import charge
from .verdict import judge_faults

#: Seconds in which all goes on after a fault, the protocol's own detection excepted:
#: the longest reconnect interval with its jitter, see `running/backoff.py`, and half as
#: much for a machine that is busy (a worker that starts imports for seconds, and what
#: has piled up goes first).
ALLOWED = 30.0 + 15.0
#: Messages that may be published and not handled yet.
FULL = 1_000
#: What one worker has in flight: its prefetch, and one in the lane of suspects.
HELD = 20 + 1
#: Seconds without any message after which those that are missing are given up, and
#: those that may be lost are known to be.
GIVEN_UP = 60.0
QUIET = 10.0

_LIBRARIES = ("amqp", "confluent-kafka", "flask", "gevent", "kombu", "redis")


@dataclass(frozen=True)
class Plan:
    """What a run does: all of it follows from the seed."""

    seed: int
    faults: Sequence[Fault]
    #: How many messages are published at least, and how many a second at the most.
    messages: int
    rate: float = 1_500.0
    workers: int = 2
    #: Seconds between two faults, at the most.
    calm: float = 1.5
    #: Seconds in which all goes on after a fault, detection excepted.
    allowed: float = ALLOWED
    #: The command that runs it again.
    command: str = ""


class Run:
    """One run.

    :param folder: For ledgers and the workers' output.
    :param say: Is told how far it has come.
    """

    def __init__(
        self,
        place: Place,
        plan: Plan,
        folder: pathlib.Path,
        say: t.Callable[[str], object] = print,
    ) -> None:
        self._place = place
        self._plan = plan
        self._say = say
        self._began = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        self._fleet = Fleet(folder, {"BROKER_URL": place.url, **place.config})
        self._published = Ledger(folder / "published")
        #: Of our own: faults read the workers' ledger, too, and a line comes once.
        self._handled = Ledger(self._fleet.ledger.path)
        self._tally = Tally()
        self._looking = threading.Lock()
        self._told: set[int] = set()
        #: Below which number messages may be lost by a fault that is told to lose some,
        #: and its index.
        self._pardons: list[tuple[int, int]] = []
        self._consumers = self._app()
        self._writer = Writer(self._published.path)
        self._publishing = Publishing(
            self._consumers, self._writer, plan.rate, self._is_full
        )
        self._scene = Scene(
            place=place.name,
            server=place.server,
            vhost=place.vhost,
            proxies=place.proxies,
            fleet=self._fleet,
            consumers=self._consumers,
            send=self._send,
        )
        self.record = RunRecord(
            place=place.name,
            title=place.title,
            seed=plan.seed,
            command=plan.command,
            versions=_versions(),
            workers=plan.workers,
        )

    def go(self) -> RunRecord:
        """Do all of it; what goes wrong is in the record."""
        try:
            self._work()
        except Exception as error:
            self._note(error)
        finally:
            self._close()
        self._judge()
        self._consumers.close()
        return self.record

    def _note(self, error: BaseException) -> None:
        text = "".join(traceback.format_exception(error)).strip()
        self.record.problems.append(text)

    def _app(self) -> AppConsumers:
        with mock.patch.dict(os.environ, self._fleet.environment()):
            return t.cast(AppConsumers, create_app().extensions["qconsume"])

    # -- the run ----------------------------------------------------------------------

    def _work(self) -> None:
        for _ in range(self._plan.workers):
            self._scene.workers.append(self._fleet.start())
        self._publishing.start()
        for index, fault in enumerate(self._plan.faults):
            self._provoke(index, fault)
        wait_for(self._is_enough, 3_600, interval=0.1)
        self._publishing.stop()
        wait_for(self._is_over, 3_600, interval=0.1)
        self._stop_workers()

    def _provoke(self, index: int, fault: Fault) -> None:
        """Let one fault happen when all is well, and wait until all is well again."""
        chance = random.Random(f"{self._plan.seed} {self._place.name} {index}")
        self._await_consuming(self._plan.allowed)
        Scene.last(chance.uniform(0.3, 1) * self._plan.calm)
        self._scene.noticed = None
        began = time.time()
        problem = self._applied(fault, chance)
        over = time.time()
        if fault.told_loss:
            # By the number, since a confirmation is noted later than it was given.
            self._pardons.append((self._publishing.next, index))
        allowed = self._plan.allowed + fault.detection
        resumed = self._await_consuming(2 * allowed)
        found = FaultRecord(
            index,
            fault.name,
            fault.told_loss,
            began=began - self._began,
            lasted=over - began,
            resumed=resumed,
            allowed=allowed,
            noticed=self._scene.noticed,
            problem=problem,
            returns=fault.returns,
        )
        self.record.faults.append(found)
        self._say(f"{self._place.name} {_told(found, len(self._plan.faults))}")
        self._check_workers()

    def _applied(self, fault: Fault, chance: random.Random) -> str:
        """Apply it; what did not come that it waited for, in words."""
        try:
            fault.apply(self._scene, chance)
        except AssertionError as error:
            return str(error)
        finally:
            for proxy in self._place.proxies:
                proxy.mend()
        return ""

    def _await_consuming(self, timeout: float) -> float | None:
        """Seconds until every worker has handled what was published from now on."""
        began, number = time.time(), self._publishing.next

        def reached() -> list[float]:
            self._check_workers()
            self._look()
            found = [
                self._tally.reached(each.pid, number) for each in self._scene.workers
            ]
            return [] if None in found else t.cast(list[float], found)

        try:
            return max(wait_for(reached, timeout, interval=0.05)) - began
        except AssertionError:
            return None

    def _check_workers(self) -> None:
        for worker in self._scene.workers:
            if worker.poll() is not None:
                raise RunFailed(f"a worker ended by itself: {_end_of(worker)}")
        if self._publishing.problem is not None:
            raise self._publishing.problem

    def _stop_workers(self) -> None:
        self._check_workers()
        codes = [self._fleet.term(each) for each in self._scene.workers]
        if any(codes):
            self.record.problems.append(f"workers ended with {codes} when told to stop")

    def _close(self) -> None:
        self._publishing.stop()
        self._look()
        self._fleet.close()
        self._writer.close()

    def _send(self, **body: t.Any) -> int:
        number = self._publishing.send(**body)
        self._told.add(number)
        return number

    # -- what has happened ------------------------------------------------------------

    def _look(self) -> None:
        with self._looking:
            self._tally.add(self._published.fresh())
            self._tally.add(self._handled.fresh())

    def _is_full(self) -> bool:
        self._look()
        return self._tally.open - len(self._excused()) > FULL

    def _excused(self) -> dict[int, int]:
        """What is missing and may be lost, and the index of the fault that did it."""
        if not self._pardons:
            return {}
        with self._looking:
            missing = self._tally.missing()
        return {
            n: next(index for number, index in self._pardons if n < number)
            for n in missing
            if n < self._pardons[-1][0]
        }

    def _is_enough(self) -> bool:
        self._check_workers()
        return self._publishing.confirmed >= self._plan.messages

    def _is_over(self) -> bool:
        """Whether all was handled, or nothing has been for so long that it never is."""
        self._check_workers()
        self._look()
        missing = self._tally.missing()
        quiet = time.time() - max(self._tally.times, default=self._began)
        if quiet > GIVEN_UP or not missing:
            return True
        excused = self._excused().keys()
        if excused and quiet < QUIET:
            return False
        missing -= excused
        return not missing or (missing <= self._told and missing <= self._dead())

    def _dead(self) -> set[int]:
        """The numbers of the dead letters."""
        plan = self._consumers.topology.queue("work")
        letters = self._consumers.broker.dead_letters(plan)
        return {json.loads(each.message.raw)["n"] for each in letters}

    # -- the verdict ------------------------------------------------------------------

    def _judge(self) -> None:
        record, tally = self.record, self._tally
        dead = self._dead()
        lost = tally.missing() - dead
        if lost:
            plan = self._consumers.topology.queue("work")
            broker = self._consumers.broker
            record.stuck = broker.depth(plan.name) + broker.depth(plan.suspects)
        record.seconds = time.time() - self._began
        record.messages = len(tally.confirmed)
        record.refused = len(tally.refused)
        record.dead_told, record.dead = len(dead & self._told), len(dead - self._told)
        record.lost = len(lost)
        record.duplicated = len(tally.again)
        if record.faults and tally.times:
            record.silence = longest_silence(
                tally.times, min(tally.times), max(tally.times)
            )
        if self._place.ordered:
            lines = Ledger(self._fleet.ledger.path).fresh()
            record.reordered = len(out_of_order(lines, tally.confirmed, KEYS))
        judge_faults(record.faults, tally, self._began, self._in_flight())
        charge(record.faults, tally, self._began, lost, self._excused())

    def _in_flight(self) -> int:
        """How many may be handled again when everything is cut off once."""
        held = self._plan.workers * HELD + BATCH
        # What was fetched ahead is handled, and cannot be committed any more.
        return held + FULL if self._place.name in KAFKA else held


class RunFailed(Exception):
    """Nothing is to be learnt from going on."""


def _told(fault: FaultRecord, count: int) -> str:
    """One line on a fault that is over."""
    resumed = "never" if fault.resumed is None else f"after {fault.resumed:.1f} s"
    noticed = "" if fault.noticed is None else f", noticed after {fault.noticed:.1f} s"
    return (
        f"{fault.index + 1}/{count} {fault.name}: {fault.lasted:.1f} s{noticed},"
        f" consuming goes on {resumed} ({fault.allowed:g} s allowed)"
        f"{fault.problem and f'; {fault.problem}'}"
    )


def _end_of(worker: subprocess.Popen[bytes]) -> str:
    output: pathlib.Path = worker.output  # type: ignore[attr-defined]
    return f"exit code {worker.returncode}\n{output.read_text()[-2000:]}"


def _versions() -> dict[str, str]:
    import flask_qconsume

    found = {"Python": platform.python_version()}
    found["flask_qconsume"] = flask_qconsume.__version__
    return found | {name: importlib.metadata.version(name) for name in _LIBRARIES}
