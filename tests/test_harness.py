"""The harness itself: for each of its rules a run of pytest that breaks it."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import textwrap
import typing as t

import pytest
from hypothesis import settings

from .harness.scripts import run_script

ROOT = pathlib.Path(__file__).parents[1]
PLUGINS = ("patched", "deadlines", "leaks")
PATCHED = ("-m", "gevent.monkey", "--module", "pytest")

Run = t.Callable[..., str]


@pytest.fixture
def run(tmp_path: pathlib.Path) -> Run:
    """Run pytest on a piece of source under the harness; returns what it printed."""

    def run(
        source: str, *, start: t.Sequence[str] = PATCHED, **environment: str
    ) -> str:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        (tmp_path / "pytest.ini").write_text("[pytest]\nleak_grace = 0.3\n")
        plugins = [f"tests.harness.{name}" for name in PLUGINS]
        options = ["-p", "no:cacheprovider", "-p", "tests.servers.fixtures"]
        for plugin in plugins:
            options += ["-p", plugin]
        done = subprocess.run(
            [sys.executable, *start, *options, "test_it.py"],
            cwd=tmp_path,
            env=_environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    return run


def _environment() -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COVERAGE_", "QCONSUME_"))
    }
    return inherited | {
        "PYTHONPATH": str(ROOT),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }


@pytest.mark.process
def test_what_outlives_its_test_fails_it(run: Run) -> None:
    said = run(
        """
        import gevent, pytest, socket, threading

        kept = []

        def test_leaves_a_greenlet():
            gevent.spawn(gevent.sleep, 60)

        def test_leaves_a_thread():
            threading.Thread(target=threading.Event().wait, daemon=True).start()

        def test_leaves_a_socket():
            kept.append(socket.socket())

        @pytest.mark.leak_grace(30)
        def test_clears_up():
            thread = threading.Thread(target=gevent.sleep)
            thread.start()
            socket.socket().close()
            gevent.spawn(gevent.sleep, 0.02)
            thread.join()

        @pytest.mark.may_leak("to show it")
        def test_may_leave_a_greenlet():
            gevent.spawn(gevent.sleep, 60)
        """
    )
    kinds = ("greenlet", "thread", "socket")
    left = re.findall(r"^E .*left behind by the test: (.*)", said, re.MULTILINE)
    assert all(f"{kind} " in text for kind, text in zip(kinds, left, strict=True)), left
    failed = re.findall(r"^ERROR test_it.py::(\w+)", said, re.MULTILINE)
    assert failed == [f"test_leaves_a_{kind}" for kind in kinds]
    assert re.search(r"5 passed.* 3 errors", said), said


@pytest.mark.process
def test_a_test_fails_at_its_deadline_and_the_run_goes_on(run: Run) -> None:
    said = run(
        """
        import gevent, pytest

        @pytest.mark.deadline(0.1)
        def test_waits_for_ever():
            gevent.event.Event().wait()

        def test_next():
            pass
        """
    )
    assert "DeadlineExceeded: took longer than 0.1 s" in said
    assert "1 failed, 1 passed" in said


@pytest.mark.process
def test_a_plain_pytest_starts_itself_again_patched(run: Run) -> None:
    said = run("def test_nothing(): pass", start=("-m", "pytest"))
    assert "1 passed" in said


@pytest.mark.process
def test_workers_are_patched_and_survive_kills_and_forks(run: Run) -> None:
    said = run(
        """
        import gc, os, socket

        import gevent, pytest

        def test_is_patched_and_on_the_main_greenlet():
            assert gevent.monkey.is_module_patched("socket")
            assert gevent.getcurrent().parent is None

        @pytest.mark.parametrize("error", [gevent.GreenletExit, gevent.Timeout])
        def test_kills_all_greenlets(error):
            every = [o for o in gc.get_objects() if isinstance(o, gevent.Greenlet)]
            gevent.killall(every, error, block=False)
            gevent.idle()

        @pytest.mark.parametrize("number", range(20))
        def test_forks(number):
            child = os.fork()
            if child == 0:
                gevent.idle()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        """,
        start=("-m", "pytest", "-p", "xdist.plugin", "-n", "2"),
    )
    assert "23 passed" in said


@pytest.mark.process
def test_an_unpatched_run_that_cannot_start_again_names_the_command(run: Run) -> None:
    said = run(
        "def test_nothing(): pass",
        start=("-m", "pytest"),
        QCONSUME_TESTS_PATCHED="1",
    )
    assert "Run: python -m gevent.monkey --module pytest" in said


@pytest.mark.process
def test_modules_are_compiled_once_without_files_beside_them(
    run: Run, tmp_path: pathlib.Path
) -> None:
    run("def test_nothing(): pass", PYTHONDONTWRITEBYTECODE="1")
    assert not (tmp_path / "__pycache__").exists()
    assert list((tmp_path / ".pytest_cache").rglob("test_it.*.pyc"))


NEEDS_BROKERS = """
    def test_redis(redis_url): pass

    def test_rabbitmq(own_rabbitmq): pass
"""


@pytest.mark.process
def test_missing_brokers_skip_their_tests_and_the_last_lines_say_so(run: Run) -> None:
    said = run(NEEDS_BROKERS, PATH="")
    assert "2 skipped" in said
    assert "Redis is missing (no redis-server on the PATH)" in said
    assert "RabbitMQ is missing (no " in said


@pytest.mark.process
def test_missing_brokers_are_a_failure_where_they_are_required(run: Run) -> None:
    said = run(NEEDS_BROKERS, PATH="", QCONSUME_REQUIRE_BROKERS="1")
    assert "2 error" in said
    assert "QCONSUME_REQUIRE_BROKERS is set" in said


@pytest.mark.process
def test_tests_that_need_no_broker_can_be_chosen(run: Run) -> None:
    source = NEEDS_BROKERS + "\n    def test_other(): pass\n"
    said = run(source, start=(*PATCHED, "-m", "not broker"), PATH="")
    assert "1 passed, 2 deselected" in said


@pytest.mark.process
def test_coverage_does_not_measure_a_script_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COVERAGE_PROCESS_START", "no-such-file")
    script = "import os; print('COVERAGE_PROCESS_START' in os.environ)"
    done = run_script(script, measured=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_examples_are_the_same_in_every_run_however_slow_the_machine_is() -> None:
    assert settings.default.deadline is None
    assert settings.default.derandomize
