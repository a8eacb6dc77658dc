"""The files and commands for operators agree with each other and with the package.

``tests/stack`` has the same for the files of ``example_app/deploy``.
"""

from __future__ import annotations

import configparser
import subprocess

import pytest
import yaml

from flask_qconsume.settings import TABLE

from .pages import PAGES
from .pages import Block
from .pages import blocks_in
from .pages import commands_in
from .servers import Kafka
from .servers import Redis

DEPLOY, HEALTH = "how-to/deploy", "how-to/health"
FORMATS = ("docker", "yaml", "ini", "toml", "json")
FILES = {page: blocks_in(page, *FORMATS) for page in PAGES}

#: Where each program that is typed into a shell is tried.
TRIED = {
    "flask": "test_docs: its commands and options are looked up",
    "gunicorn": "installs/test_pages",
    "pip": "installs/test_pages",
    "pytest": "installs/test_pages",
    "python": "installs/test_pages",
    "curl": "installs/test_pages, on the quickstart",
    "python3": "installs/test_two_commands",
    ".": "installs/test_two_commands",
    "export": "below",
    "redis-cli": "below",
    "kcat": "below",
    "sqlite3": "brokers/sql/test_documented_sql",
    # No container engine and no cluster: schemas check the files that they are given.
    "docker": "stack/test_files",
    "kubectl": "stack/test_files",
}


def block(page: str, caption: str) -> str:
    """The first block of a page that is this file, or a part of it."""
    found = [b.code for b in FILES[page] if b.caption.split(",")[0] == caption]
    return found[0]


@pytest.mark.parametrize("page", [page for page in PAGES if FILES[page]])
def test_a_file_is_whole_or_says_what_it_is_a_part_of(page: str) -> None:
    names = {b.caption.rpartition("/")[2] for found in FILES.values() for b in found}
    for found in FILES[page]:
        name, _, part = found.caption.partition(", ")
        assert name, f"{page}, line {found.line}: no caption"
        # Kubernetes' files are long; what is ours of them is shown in one place.
        assert not part or name in {*names, "deployment.yaml"}, found.caption


@pytest.mark.parametrize(
    "found", FILES[DEPLOY] + FILES[HEALTH], ids=lambda b: b.caption
)
def test_a_file_can_be_read(found: Block) -> None:
    if found.language == "yaml":
        assert isinstance(yaml.safe_load(found.code), dict)
    else:
        assert unit(found.code).sections()


def test_a_unit_waits_long_enough_for_a_worker_to_stop() -> None:
    service = unit(block(DEPLOY, "/etc/systemd/system/shop-consumers.service"))
    assert service["Service"]["TimeoutStopSec"] == "45"


def test_the_lines_for_health_go_with_the_unit() -> None:
    whole = unit(block(DEPLOY, "/etc/systemd/system/shop-consumers.service"))
    more = unit(block(HEALTH, "shop-consumers.service"))
    for name, value in more["Service"].items():
        assert whole["Service"].get(name, value) == value


def unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]  # mypy takes it for a method
    parser.read_string(text)
    return parser


# -- what is typed into a shell --------------------------------------------------------


def typed() -> list[tuple[str, str]]:
    """All commands of all pages, each with the program that it is about."""
    found = [command for page in PAGES for command in commands_in(page)]
    # What a program is fed with does not count.
    return [(each.split(" | ")[-1].split()[0], each) for each in found]


def test_every_program_that_is_typed_is_tried_somewhere() -> None:
    assert {program for program, _ in typed()} <= set(TRIED)


def test_every_variable_that_is_exported_is_a_setting() -> None:
    known = {f"FLASK_{setting.key}" for setting in TABLE}
    for program, command in typed():
        if program == "export":
            assert command.split()[1].split("=")[0] in known, command


def test_redis_takes_what_is_typed(own_redis: Redis) -> None:
    commands = [command for program, command in typed() if program == "redis-cli"]
    assert len(commands) == 2
    for command in commands:
        local = command.replace("redis-cli", f"redis-cli -e -u {own_redis.url}", 1)
        done = subprocess.run(["bash", "-ec", local], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_kcat_puts_a_record_and_shows_it(kafka: Kafka, kafka_prefix: str) -> None:
    put, show = [command for program, command in typed() if program == "kcat"]
    topic = f"{kafka_prefix}customers"
    kafka.create_topics({topic: 1})
    local = {"localhost:9092": kafka.address, "-t customers": f"-t {topic}"}
    said = ""
    for command in (put, f"{show} -e"):
        for shown, here in local.items():
            assert shown in command
            command = command.replace(shown, here)
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    assert said == 'c-7 x-tenant=a {"id": 7}\n'
