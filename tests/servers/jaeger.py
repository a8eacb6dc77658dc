"""A throwaway Jaeger, built by ``tests/stack/get_jaeger``; keeps traces in memory."""

from __future__ import annotations

import json
import pathlib
import typing as t
import urllib.parse
import urllib.request

import yaml

from .ports import HOST
from .ports import free_port
from .server import Server


class Jaeger(Server):
    """A Jaeger that takes OTLP over HTTP, and answers queries."""

    title = "Jaeger"

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self._otlp = f"{HOST}:{free_port()}"
        self._http = f"{HOST}:{free_port()}"
        self._grpc = f"{HOST}:{free_port()}"

    @classmethod
    def missing(cls) -> str | None:
        here = cls.program().exists()
        return None if here else "tests/stack/get_jaeger has not built it"

    @classmethod
    def program(cls) -> pathlib.Path:
        return pathlib.Path("~/.cache/flask_qconsume/jaeger-1.76.0/jaeger").expanduser()

    @property
    def url(self) -> str:
        """The address for spans."""
        return f"http://{self._otlp}"

    def find_traces(self, service: str) -> list[dict[str, t.Any]]:
        """Return the traces of a service, as the page of Jaeger gets them."""
        arguments = urllib.parse.urlencode({"service": service, "limit": 100})
        return list(self._get(f"traces?{arguments}")["data"] or [])

    def _get(self, path: str) -> t.Any:
        url = f"http://{self._http}/api/{path}"
        with urllib.request.urlopen(url, timeout=10.0) as answer:
            return json.load(answer)

    def _command(self) -> list[str]:
        text = yaml.safe_dump(self._make_configuration())
        self.folder.joinpath("jaeger.yaml").write_text(text, "utf-8")
        return [str(self.program()), "--config=jaeger.yaml"]

    def _make_configuration(self) -> dict[str, t.Any]:
        return {
            "extensions": {
                "jaeger_storage": {
                    "backends": {"here": {"memory": {"max_traces": 999}}}
                },
                "jaeger_query": {
                    "storage": {"traces": "here"},
                    "http": {"endpoint": self._http},
                    "grpc": {"endpoint": self._grpc},
                },
            },
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": self._otlp}}}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "here"}},
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "pipelines": {
                    "traces": {
                        "receivers": ["otlp"],
                        "exporters": ["jaeger_storage_exporter"],
                    }
                },
                "telemetry": {"metrics": {"level": "none"}},
            },
        }

    def _is_ready(self) -> bool:
        try:
            return bool(self._get("services"))
        except OSError:
            return False
