"""Starting the same command anew in a patched interpreter, however it was started."""

from __future__ import annotations

import pathlib
import shutil
import sys

import pytest

from flask_qconsume import WorkerError
from flask_qconsume.cli.gevent_patching import CommandLine
from flask_qconsume.cli.gevent_patching import parse_command_line

from .commands import Commands

RUN = ["qconsume", "run"]
PYCS = ["--check-hash-based-pycs"]


@pytest.mark.parametrize(
    ("head", "options", "target", "is_module"),
    [
        (["/bin/flask"], [], "/bin/flask", False),
        (["-m", "flask"], [], "flask", True),
        (["-mflask"], [], "flask", True),
        (["-um", "flask"], ["-u"], "flask", True),
        (["-X", "dev", "-We", "-m", "flask"], ["-X", "dev", "-We"], "flask", True),
        (["-Xdev", "-uB", "/bin/flask"], ["-Xdev", "-uB"], "/bin/flask", False),
        (["-uW", "error", "flask"], ["-uW", "error"], "flask", False),
        (["--check-hash-based-pycs", "never", "-m", "x"], [*PYCS, "never"], "x", True),
    ],
)
def test_options_and_target_are_told_apart(
    head: list[str], options: list[str], target: str, is_module: bool
) -> None:
    expected = CommandLine(options, target, is_module, RUN)
    assert parse_command_line(["python", *head, *RUN], ["flask", *RUN]) == expected


@pytest.mark.parametrize("head", [["-c", "code"], ["-"], []])
def test_what_cannot_be_repeated_says_how_to_start(head: list[str]) -> None:
    with pytest.raises(WorkerError, match="python -m gevent.monkey --module flask"):
        parse_command_line(["python", *head, *RUN], [head[0] if head else "", *RUN])


def flask_script() -> str:
    return str(pathlib.Path(sys.executable).with_name("flask"))


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [
        pytest.param([flask_script()], id="flask"),
        pytest.param([sys.executable, flask_script()], id="python flask"),
        pytest.param([sys.executable, "-m", "flask"], id="python -m flask"),
        pytest.param(
            [sys.executable, "-X", "dev", "-W", "error", "-m", "flask"],
            id="python -X dev -W error -m flask",
        ),
        pytest.param(
            [sys.executable, "-m", "gevent.monkey", "--module", "flask"],
            id="python -m gevent.monkey --module flask",
        ),
    ],
)
def test_it_runs_however_flask_was_started(
    commands: Commands, command: list[str]
) -> None:
    app = ["--app", "shop:create_app"]
    with commands.start("run", command=[*command, *app]) as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end() == 0
    assert "Stopped cleanly" in worker.output
    assert "Warning" not in worker.output


@pytest.mark.process
def test_a_script_finds_what_lies_beside_it(
    commands: Commands, folder: pathlib.Path
) -> None:
    """As any script does, wherever it is called from."""
    beside = folder / "scripts"
    beside.mkdir()
    shutil.move(folder / "shop.py", beside / "shop.py")
    (beside / "manage.py").write_text(
        "from flask.cli import FlaskGroup\n"
        "from shop import create_app\n"
        "FlaskGroup(create_app=create_app)()\n"
    )
    with commands.start("run", command=[sys.executable, "scripts/manage.py"]) as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end() == 0


def test_without_reexec_an_unpatched_process_is_refused(commands: Commands) -> None:
    done = commands.run("run", "--no-reexec")
    assert done.returncode == 1
    assert "Error: Consumers need a process that gevent has patched" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_mark_is_not_handed_on(commands: Commands, folder: pathlib.Path) -> None:
    """What a handler starts in turn must patch itself."""
    with (folder / "shop.py").open("a") as file:
        file.write(
            "\n@bp.before_worker\ndef tell():\n"
            "    print([k for k in os.environ if '_FLASK_Q' in k], flush=True)\n"
        )
    with commands.start("run") as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end() == 0
    assert "[]" in worker.output.splitlines()
