"""The files and commands for operators agree with each other and with the package."""

from __future__ import annotations

import configparser
import re
import subprocess
import typing as t
import urllib.parse

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

#: Which package a program in a container comes from.
BROUGHT_BY = {"flask": "Flask-QConsume", "gunicorn": "gunicorn"}
#: What it takes beside the package, by the URL's scheme.
EXTRA = {"amqp": "", "redis": "[redis]", "kafka": "[kafka]"}

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
    elif found.language == "ini":
        assert unit(found.code).sections()
    else:
        assert all(words[0].isupper() for words in dockerfile(found.code))


def test_the_image_has_what_is_run_in_it() -> None:
    commands = [words for words in dockerfile(block(DEPLOY, "Dockerfile"))]
    installed = next(
        words for words in commands if words[:3] == ["RUN", "pip", "install"]
    )
    run = [service["command"] for service in built().values()]
    for words in commands + dockerfile(block(HEALTH, "Dockerfile")):
        if words[0] == "CMD":
            run.append(yaml.safe_load(" ".join(words[1:])))
    assert len(run) > 3
    for command in run:
        assert BROUGHT_BY[command[0]] in installed, command


def test_the_services_agree_on_the_broker() -> None:
    compose = yaml.safe_load(block(DEPLOY, "compose.yaml"))
    services, dockers = compose["services"], block(DEPLOY, "Dockerfile")
    for service in built().values():
        url = urllib.parse.urlsplit(service["environment"]["FLASK_QCONSUME_BROKER_URL"])
        broker = services[url.hostname]
        assert f"Flask-QConsume{EXTRA[url.scheme]} " in dockers
        assert broker["image"].startswith({"amqp": "rabbitmq:"}[url.scheme])
        user, password = url.username, url.password
        assert broker["environment"]["RABBITMQ_DEFAULT_USER"] == user
        assert broker["environment"]["RABBITMQ_DEFAULT_PASS"] == password
        mounted = [volume.split(":")[0] for volume in broker["volumes"]]
        assert mounted == list(compose["volumes"])


def test_a_deployment_waits_long_enough_for_a_worker_to_stop() -> None:
    service = unit(block(DEPLOY, "/etc/systemd/system/shop-consumers.service"))
    assert service["Service"]["TimeoutStopSec"] == "45"
    assert built()["consumers"]["stop_grace_period"] == "45s"


def test_the_lines_for_health_go_with_the_unit() -> None:
    whole = unit(block(DEPLOY, "/etc/systemd/system/shop-consumers.service"))
    more = unit(block(HEALTH, "shop-consumers.service"))
    for name, value in more["Service"].items():
        assert whole["Service"].get(name, value) == value


def test_kubernetes_asks_at_the_port_that_is_open() -> None:
    (container,) = yaml.safe_load(block(HEALTH, "deployment.yaml"))["containers"]
    (port,) = container["ports"]
    assert container["command"][-1].endswith(f":{port['containerPort']}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == port["name"]


def built() -> dict[str, t.Any]:
    """The services of the compose file that are built by the Dockerfile."""
    services = yaml.safe_load(block(DEPLOY, "compose.yaml"))["services"]
    return {name: found for name, found in services.items() if found.get("build")}


def dockerfile(text: str) -> list[list[str]]:
    """The instructions of a Dockerfile, as words; a health check's own comes apart."""
    joined = re.sub(r" *\\\n\s*", "\n", text)
    return [line.split() for line in joined.strip().splitlines()]


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
