"""Certificates, valid and invalid ones, and a server that shows one."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import typing as t

import pytest

_NEW = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {0}.key -out {0}.pem"
    " -subj /CN={1} -addext subjectAltName=DNS:{1}"
)
_REQUEST = "openssl req -new -key right.key -out expired.csr -subj /CN=localhost"
_SIGN = (
    "openssl ca -batch -selfsign -config ca.cnf -keyfile right.key -in expired.csr"
    " -out expired.pem -startdate 20200101000000Z -enddate 20200201000000Z -notext"
)
_CONFIG = """
[ca]
default_ca = own
[own]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
x509_extensions = names
[any]
commonName = supplied
[names]
basicConstraints = CA:TRUE
subjectAltName = DNS:localhost
"""


class Certificates:
    """Certificates in a folder: ``right``, ``expired`` and ``other`` (of another host).

    :param folder: An empty folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        self._folder = folder
        (folder / "ca.cnf").write_text(_CONFIG)
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01")
        for command in (
            _NEW.format("right", "localhost"),
            _NEW.format("other", "example.org"),
            _REQUEST,
            _SIGN,
        ):
            subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
        shutil.copy(folder / "right.key", folder / "expired.key")

    def path(self, name: str) -> str:
        """Path of a certificate's file."""
        return str(self._folder / f"{name}.pem")

    @contextlib.contextmanager
    def shown(self, name: str) -> t.Iterator[int]:
        """Start a server that only shows a certificate; return its port."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(name), self._folder / f"{name}.key")
        with answering(lambda found: _silent(context, found)) as port:
            yield port


@contextlib.contextmanager
def answering(answer: t.Callable[[socket.socket], None]) -> t.Iterator[int]:
    """Start a server that answers each connection by a function; return its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_serve, args=(server, answer), daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def _serve(server: socket.socket, answer: t.Callable[[socket.socket], None]) -> None:
    with contextlib.suppress(OSError):
        while True:
            found, _ = server.accept()
            found.settimeout(5)
            with found, contextlib.suppress(OSError):
                answer(found)


def _silent(context: ssl.SSLContext, found: socket.socket) -> None:
    with context.wrap_socket(found, server_side=True) as secured:
        secured.recv(1)
