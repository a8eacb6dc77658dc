"""A throwaway Prometheus, with the rules and the configuration that a test gives it."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t
import urllib.error
import urllib.parse
import urllib.request

import yaml

from .ports import HOST
from .ports import free_port
from .server import Server


class Prometheus(Server):
    """A Prometheus that scrapes addresses every second.

    :param targets: The addresses, ``HOST:PORT``, of each job by its name.
    :param rules: Contents of its file of rules.
    """

    title = "Prometheus"

    def __init__(
        self,
        folder: pathlib.Path,
        targets: t.Mapping[str, list[str]],
        rules: t.Mapping[str, t.Any],
    ) -> None:
        super().__init__(folder)
        self.port = free_port()
        often = {
            "scrape_interval": "1s",
            "scrape_timeout": "1s",
            "evaluation_interval": "500ms",
        }
        jobs = [
            {"job_name": name, "static_configs": [{"targets": addresses}]}
            for name, addresses in targets.items()
        ]
        self._write(
            "prometheus.yaml",
            {"global": often, "rule_files": ["rules.yaml"], "scrape_configs": jobs},
        )
        self._write("rules.yaml", rules)

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("prometheus") else "no prometheus on the PATH"

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def query(self, text: str) -> list[dict[str, t.Any]]:
        """Return the series of a query, each with its ``metric`` and its ``value``."""
        answer = self.get("query", query=text)
        return list(answer["data"]["result"])

    def get(self, path: str, **arguments: str) -> t.Any:
        """Return an answer of the HTTP API.

        :raises AssertionError: if Prometheus refuses the query.
        """
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10.0) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(error.read().decode()) from None

    def _command(self) -> list[str]:
        return [
            "prometheus",
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=data",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1.0):
                return True
        except OSError:
            return False

    def _write(self, name: str, document: t.Mapping[str, t.Any]) -> None:
        self.folder.joinpath(name).write_text(yaml.safe_dump(document), "utf-8")
