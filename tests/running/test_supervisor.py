"""A supervisor and its children: starts, restarts, stops.

The children are small programs without an app, but where it says so.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import typing as t

import psutil
import pytest
import redis

from ..cli.commands import Commands
from ..cli.commands import get
from ..cli.conftest import SHOP
from ..servers.ports import free_port
from ..servers.server import is_alive
from ..waiting import wait_for

pytestmark = pytest.mark.process

SUPERVISE = """
import logging
import os
import socket
import sys

before = {"gevent"} & set(sys.modules)  # Where coverage measures, it imports it.

from flask_qconsume.running.process.child_process import ChildLimits
from flask_qconsume.running.process.supervisor import Supervisor

logging.basicConfig(level=logging.INFO)
listener = socket.create_server(("127.0.0.1", 0))
supervisor = Supervisor(
    [sys.executable, "child.py"],
    os.environ,
    count=int(sys.argv[1]),
    listener=listener,
    stop_timeout=float(sys.argv[2]),
    again=(7,),
    limits=ChildLimits(starting=1.0, blocked=5.0),
)
# watching
code = supervisor.run()
assert {"gevent"} & set(sys.modules) == before
print("ended with", code, flush=True)
sys.exit(code)
"""

CHILD = """
import os
import signal
import socket
import sys

control, listener = os.environ["_FLASK_QCONSUME_FDS"].split(",")
control = socket.socket(fileno=int(control))
listener = socket.socket(fileno=int(listener))

def up():
    control.sendall(b"up\\n")
    # In one write, so that nobody reads half of it.
    sys.stdout.write(f"child is up {os.getpid()}\\n")
    sys.stdout.flush()

def exit_with(code):
    sys.stdout.write(f"child ends {os.getpid()}\\n")
    sys.stdout.flush()
    os._exit(code)

def on_term(*args):
    exit_with(0)

"""

#: Waits for the end of the supervisor, or for SIGTERM.
WAIT = """
signal.signal(signal.SIGTERM, on_term)
signal.signal(signal.SIGINT, on_term)
up()
control.recv(1)
print("parent is gone", flush=True)
"""


#: Blocks the supervisor when one of its children ends.
LOG_BLOCKS = """
import signal

class Blocked(logging.Handler):
    def emit(self, record):
        while "starting another" in record.msg:
            print("log blocks", flush=True)
            signal.pause()

logging.getLogger("flask_qconsume").addHandler(Blocked())
"""

#: Prints each verdict about the children.
TELL = "supervisor.add_outlet(lambda told: print(told.to_json(), flush=True))"


class Supervised(Commands):
    """A supervisor over programs of the test's own."""

    #: Code that the supervisor runs first.
    logging = ""
    #: Code that it runs when it is made.
    watching = ""

    def begin(self, child: str, *, count: int = 2, stop_timeout: float = 5.0) -> t.Any:
        (self.folder / "child.py").write_text(CHILD + child)
        (self.folder / "supervise.py").write_text(
            SUPERVISE.replace("listener = ", f"{self.logging}listener = ", 1).replace(
                "# watching", self.watching
            )
        )
        arguments = [str(count), str(stop_timeout)]
        return self.spawn([sys.executable, "supervise.py", *arguments])


@pytest.fixture
def supervised(tmp_path: pathlib.Path) -> Supervised:
    return Supervised(tmp_path, {})


def runs(pid: int) -> bool:
    try:
        return is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def pids(output: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"child is up (\d+)", output)]


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
)
def test_one_signal_stops_all(supervised: Supervised, number: signal.Signals) -> None:
    with supervised.begin(WAIT, count=3) as parent:
        parent.wait_for("child is up", 3)
        assert parent.end(number) == 0
        assert parent.output.count("child ends") == 3


def test_a_signal_without_a_meaning_is_passed_on(supervised: Supervised) -> None:
    """Not to a child that starts: without a handler it would end by the signal."""
    child = (
        "if not os.path.exists('first'):\n"
        "    open('first', 'w').close()\n"
        "    print('starts', flush=True)\n"
        "    control.recv(1)\n"
        "signal.signal(signal.SIGUSR1, lambda *args: print('heard', flush=True))\n"
        + WAIT
    )
    with supervised.begin(child) as parent:
        parent.wait_for("starts")
        parent.wait_for("child is up")
        parent.send(signal.SIGUSR1)
        parent.wait_for("heard")
        assert parent.end() == 0
        assert "killed by" not in parent.output


def test_a_log_that_blocks_the_supervisor_does_not_delay_a_stop(
    supervised: Supervised,
) -> None:
    supervised.logging = LOG_BLOCKS
    with supervised.begin(WAIT, stop_timeout=-18.0) as parent:
        parent.wait_for("child is up", 2)
        os.kill(pids(parent.output)[0], signal.SIGKILL)
        parent.wait_for("log blocks")
        assert parent.end() == 3
        assert parent.output.count("child ends") == 1
        assert "The stop has not ended after 1 s: ending at once" in parent.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_stops_each_once(
    supervised: Supervised, number: signal.Signals
) -> None:
    """As a terminal's Ctrl-C and service managers do."""
    with supervised.begin(WAIT) as parent:
        parent.wait_for("child is up", 2)
        for pid in pids(parent.output):
            os.kill(pid, number)
        assert parent.end(number) == 0


def test_a_child_that_dies_is_replaced(supervised: Supervised) -> None:
    with supervised.begin(WAIT) as parent:
        parent.wait_for("child is up", 2)
        victim = pids(parent.output)[0]
        os.kill(victim, signal.SIGKILL)
        parent.wait_for("child is up", 3)
        line = rf"Process {victim} ended \(killed by SIGKILL\); starting .* in (\S+) s"
        found = re.search(line, parent.output)
        assert found is not None
        assert 0.5 <= float(found[1]) <= 1.0
        assert parent.end() == 0


def test_the_wait_before_the_next_start_grows(supervised: Supervised) -> None:
    """After it was up once, whatever its exit code."""
    with supervised.begin("up(); exit_with(1)", count=1) as parent:
        parent.wait_for("starting another one in", 3)
        waits = [float(found) for found in re.findall(r"in (\S+) s", parent.output)]
        assert 0.5 <= waits[0] <= 1.0 <= waits[1] <= 2.0 <= waits[2] <= 4.0
        assert parent.end() == 0


@pytest.mark.parametrize("code", [1, 2])
def test_it_gives_up_when_no_child_ever_came_up(
    supervised: Supervised, code: int
) -> None:
    child = f"print('Error: wrong', flush=True); exit_with({code})"
    with supervised.begin(child) as parent:
        assert parent.wait() == code
    assert "could not start: giving up" in parent.output
    assert 1 <= parent.output.count("Error: wrong") <= 2


def test_a_child_that_cannot_start_does_not_end_other_children(
    supervised: Supervised,
) -> None:
    """The configuration is wrong only if no child can start."""
    child = (
        "try:\n"
        "    open('first', 'x').close()\n"
        "except FileExistsError:\n"
        "    pass\n"
        "else:\n"
        "    exit_with(1)\n"
    )
    with supervised.begin(child + WAIT) as parent:
        parent.wait_for("child is up", 2)
        assert parent.output.count("(exit code 1); starting another one") == 1
        assert parent.end() == 0


def test_a_child_that_does_not_come_up_is_reported(supervised: Supervised) -> None:
    """For example, it hangs in an import."""
    supervised.watching = TELL
    child = "print('hangs', os.getpid(), flush=True)\ncontrol.recv(1)\n"
    with supervised.begin(child, count=1) as parent:
        parent.wait_for("hangs")
        parent.wait_for("s ago and does not run consumers yet: importing the")
        assert parent.output.count("ERROR:flask_qconsume.processes:process ") == 1
        assert parent.end() == 0
        assert '{"live": false, "ready": false, "wrong": ["process ' in parent.output


REPORT = """
control.sendall(b'{{"live": false, "ready": false, "wrong": [], "blocked": {}}}\\n')
"""


def test_a_child_with_a_blocked_hub_is_killed(supervised: Supervised) -> None:
    child = f"up()\n{REPORT.format(4.0)}{REPORT.format(5.0)}control.recv(1)"
    with supervised.begin(child, count=1) as parent:
        parent.wait_for("its hub has not run for 5 s: killed")
        parent.wait_for("ended (killed by SIGKILL); starting another one")
        parent.end()


def test_a_child_that_is_blocked_while_it_starts_is_not_killed(
    supervised: Supervised,
) -> None:
    """A hook may take long to load its data."""
    report = REPORT.format(50.0).strip()
    wait = "select.select([control], [], [], 0.5)"
    child = f"import select\nwhile True:\n    {report}\n    {wait}\n"
    supervised.watching = TELL
    with supervised.begin(child, count=1) as parent:
        parent.wait_for('{"live": false, "ready": false, "wrong": []}', 3)
        assert parent.end() == 0
        assert "its hub has" not in parent.output


def test_a_child_that_stops_reporting_is_killed(supervised: Supervised) -> None:
    """Code in C may keep even threads from running."""
    child = f"up()\n{REPORT.format(0.0)}control.recv(1)"
    with supervised.begin(child, count=1) as parent:
        parent.wait_for("its hub has not run")
        parent.wait_for("ended (killed by SIGKILL); starting another one")
        parent.end()


@pytest.mark.parametrize("by", ["the supervisor", "something else"])
def test_processes_of_a_killed_child_are_killed(
    supervised: Supervised, by: str
) -> None:
    """Its successor handles the messages again, and starts the same."""
    end = REPORT.format(5.0) if by == "the supervisor" else "os.kill(os.getpid(), 9)\n"
    child = (
        "import subprocess\n"
        "started = subprocess.Popen(['sleep', '1000'])\n"
        "print('started', started.pid, flush=True)\n"
        f"up()\n{end}control.recv(1)"
    )
    with supervised.begin(child, count=1) as parent:
        parent.wait_for("(killed by SIGKILL); starting another one")
        found = re.findall(r"started (\d+)", parent.output)
        wait_for(lambda: not runs(int(found[0])))
        parent.end()


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "exit_with(5)"])
def test_a_fork_that_keeps_the_control_socket_delays_nothing(
    supervised: Supervised, end: str
) -> None:
    """As the processes of a ``multiprocessing.Pool`` keep it."""
    fork = f"if os.fork():\n    {end}\nsignal.alarm(20)\nsignal.pause()\n"
    with supervised.begin(f"up()\n{fork}", count=1) as parent:
        parent.wait_for("starting another one", timeout=10)
        parent.wait_for("child is up", times=2, timeout=10)
        assert parent.end() == 0


def test_a_supervisor_that_is_blocked_is_not_live(supervised: Supervised) -> None:
    supervised.logging = LOG_BLOCKS
    supervised.watching = (
        "import threading\n"
        "def watch():\n"
        "    while not threading.Event().wait(0.2):\n"
        "        print(supervisor.verdict.to_json(), flush=True)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
    )
    with supervised.begin(WAIT) as parent:
        parent.wait_for("child is up", 2)
        parent.wait_for('"live": true')
        os.kill(pids(parent.output)[0], signal.SIGKILL)
        parent.wait_for("The supervising process has done nothing for")
        parent.send()
        parent.wait_for("child ends")
        assert parent.end() == 128 + signal.SIGTERM


def test_a_child_that_is_killed_at_its_start_is_replaced(
    supervised: Supervised,
) -> None:
    """A kill does not prove that the configuration is wrong."""
    child = "print('try', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    with supervised.begin(child, count=1) as parent:
        parent.wait_for("try", 2)
        # The second one may not have ended yet: killed during the stop, it would make
        # that an unclean one.
        parent.wait_for("starting another one in", 2)
        assert parent.end() == 0


def test_a_child_may_ask_to_be_restarted_at_once(supervised: Supervised) -> None:
    with supervised.begin("up(); exit_with(7)", count=1) as parent:
        parent.wait_for("child is up", 5)
        assert "starting another one" not in parent.output
        parent.end()


@pytest.mark.parametrize("code", [3, 1])
def test_an_unclean_end_makes_the_whole_stop_forced(
    supervised: Supervised, code: int
) -> None:
    child = WAIT.replace("on_term)", f"lambda *args: exit_with({code}))")
    with supervised.begin(child) as parent:
        parent.wait_for("child is up", 2)
        assert parent.end() == 3


@pytest.mark.deadline(60)
def test_a_child_that_does_not_end_is_killed(supervised: Supervised) -> None:
    child = WAIT.replace("on_term)", "signal.SIG_IGN)")
    # The reserve, which comes on top, is 15 s.
    with supervised.begin(child, count=1, stop_timeout=-14.0) as parent:
        parent.wait_for("child is up")
        assert parent.end() == 3
        assert "does not end: killing it" in parent.output
        assert not runs(pids(parent.output)[0])


def test_a_second_signal_ends_all_at_once(supervised: Supervised) -> None:
    child = WAIT.replace("on_term)", "signal.SIG_IGN)")
    with supervised.begin(child) as parent:
        parent.wait_for("child is up", 2)
        parent.send()
        parent.wait_for("SIGTERM: stopping; once more")
        assert parent.end(signal.SIGINT) == 128 + signal.SIGINT
        assert not any(map(runs, pids(parent.output)))


def test_children_end_when_the_supervisor_is_killed(supervised: Supervised) -> None:
    with supervised.begin(WAIT) as parent:
        parent.wait_for("child is up", 2)
        assert parent.end(signal.SIGKILL) == -signal.SIGKILL
        wait_for(lambda: parent.output.count("parent is gone") == 2)
        wait_for(lambda: not any(map(runs, pids(parent.output))))


# -- the command ---------------------------------------------------------------------


def test_memory_is_refused_with_the_reason(tmp_path: pathlib.Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    done = Commands(tmp_path, {}).run("run", "--processes", "2")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Error: '--processes' needs a broker that all processes share"
    )


@pytest.fixture
def shop(tmp_path: pathlib.Path, redis_url: str) -> Commands:
    (tmp_path / "shop.py").write_text(SHOP)
    return Commands(tmp_path, {"BROKER_URL": redis_url})


def test_all_processes_share_the_web_and_the_messages(shop: Commands) -> None:
    address = f"127.0.0.1:{free_port()}"
    with shop.start("run", "--processes", "2", "--web", address) as parent:
        parent.wait_for("Serving on", 2)
        seen: collections.Counter[int] = collections.Counter()
        wait_for(lambda: len(_count(seen, f"http://{address}/")) == 2, timeout=30)
        assert parent.pid not in seen
        assert shop.run("publish", "order.created", '{"n": 1}').returncode == 0
        parent.wait_for("billed {'n': 1}")
        assert parent.end() == 0
        assert parent.output.count("Stopped cleanly") == 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(address.split(":")[1])))


def _count(seen: collections.Counter[int], url: str) -> collections.Counter[int]:
    seen[get(url)["pid"]] += 1
    return seen


def test_workers_stop_cleanly_when_the_supervisor_is_killed(shop: Commands) -> None:
    with shop.start("run", "--processes", "2") as parent:
        parent.wait_for("consuming the queue 'bill'", 2)
        children = psutil.Process(parent.pid).children()
        parent.end(signal.SIGKILL)
        wait_for(lambda: parent.output.count("Stopped cleanly") == 2)
        wait_for(lambda: not any(map(is_alive, children)))


def test_two_signals_to_a_worker_that_is_supervised_are_one(shop: Commands) -> None:
    """A service manager signals every process, and the supervisor does so too."""
    with shop.start("run", "--processes", "1") as parent:
        parent.wait_for("consuming the queue 'bill'")
        (child,) = psutil.Process(parent.pid).children()
        body = json.dumps({"seconds": 2})
        assert shop.run("publish", "order.created", body).returncode == 0
        wait_for(lambda: _is_empty(shop))
        child.send_signal(signal.SIGTERM)
        parent.wait_for("SIGTERM: stopping")
        assert parent.end() == 0
        assert "billed {'seconds': 2}" in parent.output


def _is_empty(commands: Commands) -> bool:
    with redis.Redis.from_url(commands.config["BROKER_URL"]) as client:
        return not client.exists("bill")


def test_a_wrong_configuration_is_reported_once(shop: Commands) -> None:
    """Even if each child finds it, and not the supervisor."""
    code = (shop.folder / "shop.py").read_text()
    hook = "\n@bp.before_worker\ndef fail():\n    raise RuntimeError('no licence')\n"
    (shop.folder / "shop.py").write_text(code + hook)
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "shop:create_app", "qconsume"]
        + ["run", "--processes", "1"],
        cwd=shop.folder,
        env=shop.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: no licence") == 1
    assert "giving up" in done.stderr


# -- what never returns from C ---------------------------------------------------------

#: Backtracks for ages, in C, and holds the interpreter's lock meanwhile.
POISON = """

@bp.consumer("parse", concurrency=3)
def parse(body):
    import re

    print("parsing", body["n"], flush=True)
    re.match(r"(a+)+$", "a" * 60 + "b" if body["n"] == 0 else "aaa")
    print("parsed", body["n"], flush=True)
"""

PUBLISH = """
from flask_qconsume import get_app_consumers
from shop import create_app

consumers = get_app_consumers(create_app())
consumers.publish_many([("parse", {"n": number}) for number in range(4)])
consumers.close()
"""


@pytest.mark.deadline(240)
def test_a_message_that_blocks_forever_becomes_a_dead_letter_on_redis(
    tmp_path: pathlib.Path, redis_url: str
) -> None:
    blocks_until_it_is_dead(Commands(tmp_path, {"BROKER_URL": redis_url, "LEASE": 3}))


@pytest.mark.deadline(240)
def test_a_message_that_blocks_forever_becomes_a_dead_letter_on_rabbitmq(
    tmp_path: pathlib.Path, rabbitmq_url: str
) -> None:
    blocks_until_it_is_dead(Commands(tmp_path, {"BROKER_URL": rabbitmq_url}))


@pytest.mark.deadline(240)
def test_a_message_that_blocks_forever_becomes_a_dead_letter_on_streams(
    tmp_path: pathlib.Path, redis_url: str
) -> None:
    url = f"redis-streams{redis_url.removeprefix('redis')}"
    blocks_until_it_is_dead(Commands(tmp_path, {"BROKER_URL": url, "LEASE": 3}))


@pytest.mark.deadline(240)
def test_a_message_that_blocks_forever_becomes_a_dead_letter_on_kafka(
    tmp_path: pathlib.Path, kafka_url: str, kafka_prefix: str
) -> None:
    config = {"BROKER_URL": kafka_url, "QUEUE_PREFIX": kafka_prefix, "LEASE": 6}
    blocks_until_it_is_dead(Commands(tmp_path, config))


def blocks_until_it_is_dead(shop: Commands) -> None:
    """The message is a suspect after the first kill; other messages are handled."""
    code = SHOP.replace("def create_app", f"{POISON}\n\ndef create_app")
    (shop.folder / "shop.py").write_text(code)
    shop.config["DELIVERY_LIMIT"] = 2
    with shop.spawn([sys.executable, "-c", PUBLISH]) as publishing:
        assert publishing.wait() == 0, publishing.output
    options = ["orders.parse", "--processes", "1", "--kill-blocked", "5"]
    with shop.start("run", *options) as parent:
        parent.wait_for("parsing 0", 2, timeout=60)
        parent.wait_for("is a dead letter", timeout=60)
        wait_for(lambda: "parse" in dead(shop), 60, message=lambda: parent.output)
        for number in (1, 2, 3):
            parent.wait_for(f"parsed {number}", timeout=60)
        assert parent.end() == 0
    assert parent.output.count("its hub has not run for") == 2
    assert "parsed 0" not in parent.output


def dead(commands: Commands) -> str:
    return commands.run("dead-letters", "list", "orders.parse").stdout


@pytest.mark.parametrize(
    "options, said",
    [(["--kill-blocked", "60"], "--processes"), (["--kill-blocked", "1"], "at least")],
)
def test_a_setup_that_cannot_kill_is_refused(
    shop: Commands, options: list[str], said: str
) -> None:
    more = ["--processes", "1"] if said == "at least" else []
    done = shop.run("run", *options, *more)
    assert done.returncode == 2
    assert said in done.stderr
