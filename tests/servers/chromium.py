"""A Chromium without a screen, driven over WebDriver's protocol: JSON over HTTP."""

from __future__ import annotations

import json
import pathlib
import shutil
import typing as t
import urllib.error
import urllib.request

from .ports import HOST
from .ports import free_port
from .server import Server

_ARGUMENTS = (
    "--headless",
    # It shows our own pages only, and root may not have the sandbox.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Chromium(Server):
    """A throwaway browser with a profile of its own, and one window."""

    title = "Chromium"

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self._session = ""

    @classmethod
    def missing(cls) -> str | None:
        programs = [name for name in ("chromium", "chromedriver") if not _where(name)]
        return f"no {programs[0]} on the PATH" if programs else None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def look_at(self, url: str, *, width: int, dark: bool = False) -> None:
        """Load a page, in a window so wide, by day or by night."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self._devtools(
            "Emulation.setDeviceMetricsOverride", metrics | {"mobile": False}
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._ask("url", {"url": url})

    def evaluate(self, script: str) -> t.Any:
        """Run the body of a JavaScript function in the page; return what it returns."""
        return self._ask("execute/sync", {"script": script, "args": []})

    def start(self) -> None:
        super().start()
        profile = f"--user-data-dir={self.folder / 'profile'}"
        options = {"binary": _where("chromium"), "args": [*_ARGUMENTS, profile]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        asked = {"capabilities": {"alwaysMatch": wanted}}
        self._session = self._post("session", asked)["sessionId"]

    def _command(self) -> list[str]:
        return ["chromedriver", f"--port={self.port}"]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/status", timeout=5) as answer:
                return bool(json.load(answer)["value"]["ready"])
        except (urllib.error.URLError, ConnectionError):
            return False

    def _devtools(self, command: str, parameters: t.Mapping[str, t.Any]) -> None:
        self._ask("goog/cdp/execute", {"cmd": command, "params": parameters})

    def _ask(self, path: str, body: t.Mapping[str, t.Any]) -> t.Any:
        return self._post(f"session/{self._session}/{path}", body)

    def _post(self, path: str, body: t.Mapping[str, t.Any]) -> t.Any:
        request = urllib.request.Request(
            f"{self.url}/{path}", json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


def _where(program: str) -> str | None:
    return shutil.which(program)
