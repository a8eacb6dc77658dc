"""An app whose consumer records its messages, and programs of other projects."""

from __future__ import annotations

import shutil
import subprocess
import typing as t

import pytest

from flask_qconsume import current_message

from ..running.conftest import AppWithWorkers
from ..servers.fixtures import REQUIRE
from ..servers.fixtures import refuse
from ..waiting import wait_for


class RecordingApp:
    """An app with one queue."""

    def __init__(self, queue: str, **config: t.Any) -> None:
        self.queue = queue
        self.worker_app = AppWithWorkers(
            **{f"QCONSUME_{k.upper()}": v for k, v in config.items()}
        )
        #: Each handled message: its body, and the message itself.
        self.handled: list[tuple[t.Any, t.Any]] = []

        @self.worker_app.qconsume.consumer(queue)
        def keep(body: t.Any) -> None:
            self.handled.append((body, current_message._get_current_object()))

    def declare(self) -> None:
        """Declare the app's topology."""
        self.worker_app.consumers.broker.declare()

    def publish(self, body: t.Any, **options: t.Any) -> str:
        return self.worker_app.publish(self.queue, body, **options)

    def consume(self, count: int) -> list[tuple[t.Any, t.Any]]:
        """Run a worker until ``count`` messages are handled; return them."""
        worker = self.worker_app.start()
        try:
            wait_for(lambda: len(self.handled) >= count, 30)
        finally:
            worker.stop()
        return self.handled


@pytest.fixture
def make_recording_app() -> t.Iterator[t.Callable[..., RecordingApp]]:
    made: list[RecordingApp] = []

    def make(queue: str, **config: t.Any) -> RecordingApp:
        made.append(RecordingApp(queue, **config))
        return made[-1]

    yield make
    for recording_app in made:
        recording_app.worker_app.consumers.close()


def run(*command: str, given: str = "") -> str:
    """Run another project's program, and return its output."""
    if shutil.which(command[0]) is None:
        refuse(f"{command[0]} is not installed, which CI has ({REQUIRE})")
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
