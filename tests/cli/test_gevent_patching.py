"""Restart of the same command in a patched interpreter."""

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
def test_a_command_line_is_parsed(
    head: list[str], options: list[str], target: str, is_module: bool
) -> None:
    expected = CommandLine(options, target, is_module, RUN)
    assert parse_command_line(["python", *head, *RUN], ["flask", *RUN]) == expected


@pytest.mark.parametrize("head", [["-c", "code"], ["-"], []])
def test_a_command_that_cannot_be_repeated_is_an_error(head: list[str]) -> None:
    with pytest.raises(WorkerError, match="python -m gevent.monkey --module flask"):
        parse_command_line(["python", *head, *RUN], [head[0] if head else "", *RUN])


def get_flask_script() -> str:
    return str(pathlib.Path(sys.executable).with_name("flask"))


@pytest.mark.process
@pytest.mark.parametrize(
    "command",
    [
        pytest.param([get_flask_script()], id="flask"),
        pytest.param([sys.executable, get_flask_script()], id="python flask"),
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
def test_a_worker_runs_with_every_way_to_start_flask(
    commands: Commands, command: list[str]
) -> None:
    app = ["--app", "shop:create_app"]
    with commands.start("run", command=[*command, *app]) as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end() == 0
    assert "Stopped cleanly" in worker.output
    assert "Warning" not in worker.output


@pytest.mark.process
def test_a_script_can_import_modules_of_its_folder(
    commands: Commands, folder: pathlib.Path
) -> None:
    """The working directory is another folder."""
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


def test_child_processes_do_not_inherit_the_mark(
    commands: Commands, folder: pathlib.Path
) -> None:
    """A command that a handler starts must restart in a patched interpreter, too."""
    with (folder / "shop.py").open("a") as file:
        file.write(
            "\n@bp.before_worker\ndef tell():\n"
            "    print([k for k in os.environ if '_FLASK_Q' in k], flush=True)\n"
        )
    with commands.start("run") as worker:
        worker.wait_for("consuming the queue", 2)
        assert worker.end() == 0
    assert "[]" in worker.output.splitlines()
