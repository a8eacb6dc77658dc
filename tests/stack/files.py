"""The files of ``example_app/deploy``, and the queries in them."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import typing as t
from dataclasses import dataclass

import yaml

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "example_app" / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"
DASHBOARDS = sorted(DEPLOY.glob("grafana/dashboards/*.json"))
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*.yaml"))

COMPOSE = DEPLOY / "compose.yaml"
COLLECTOR = DEPLOY / "collector.yaml"

_VARIABLES = {"$__rate_interval": "1m", "$consumer": ".+"}


@dataclass(frozen=True)
class Query:
    """One query of a dashboard or a rule."""

    place: str
    text: str

    @property
    def panel(self) -> str:
        """The dashboard and panel, without the letter of the query."""
        return self.place.rpartition(" ")[0]


def load(path: pathlib.Path) -> t.Any:
    """Return the only document of a YAML file."""
    return yaml.safe_load(path.read_text("utf-8"))


def load_all(path: pathlib.Path) -> list[t.Any]:
    """Return all documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text("utf-8")))


def list_rules() -> list[dict[str, t.Any]]:
    return [rule for group in load(RULES)["groups"] for rule in group["rules"]]


def list_alerts() -> list[dict[str, t.Any]]:
    return [rule for rule in list_rules() if "alert" in rule]


def list_panels(dashboard: pathlib.Path) -> list[dict[str, t.Any]]:
    """Return the panels of a dashboard, without its rows."""
    panels = json.loads(dashboard.read_text("utf-8"))["panels"]
    return [panel for panel in panels if panel["type"] != "row"]


def list_dashboard_queries(variables: t.Mapping[str, str] = _VARIABLES) -> list[Query]:
    """Return the queries of all panels, with values in place of Grafana's variables."""
    return [
        Query(
            f"{path.stem}: {panel['title']} {target['refId']}",
            fill_in(target["expr"], variables),
        )
        for path in DASHBOARDS
        for panel in list_panels(path)
        for target in panel["targets"]
    ]


def fill_in(query: str, variables: t.Mapping[str, str]) -> str:
    """Replace Grafana's variables; that of one consumer stands for all consumers."""
    query = query.replace('="$consumer"', '=~"$consumer"')
    for name, value in variables.items():
        query = query.replace(name, value)
    return query


def list_selectors(query: str) -> list[str]:
    """Return the parts of a query that select series, such as ``up{job="shop"}``.

    An alert's condition has no data as long as nothing is wrong, its selectors have.
    """
    found = re.findall(r"\b((?:qconsume|consumer|up)[\w:]*(?:\{[^}]*\})?)", query)
    labels = {"consumer", "consumer_queue"}
    return [each for each in found if each not in labels]


def run(*command: str, folder: pathlib.Path = DEPLOY) -> str:
    """Run a program, and return what it printed.

    :raises AssertionError: if its exit code is not 0.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
