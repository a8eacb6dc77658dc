"""Install the wheel of a folder into a clean environment and start what it brings."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile

IN_SDIST = ("docs/", "tests/", "example_app/", "tox.ini", "LICENSE.txt", "CHANGES.rst")
IN_WHEEL = ("flask_qconsume/py.typed", "flask_qconsume/cli/")


def main(folder: pathlib.Path) -> None:
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory() as scratch:
        check_installed(wheel, pathlib.Path(scratch))
    print(f"{wheel.name} and {sdist.name}: fine")


def check_contents(wheel: pathlib.Path, sdist: pathlib.Path) -> None:
    packed = zipfile.ZipFile(wheel).namelist()
    require(IN_WHEEL, packed, wheel)
    strangers = {name.split("/")[0] for name in packed} - {"flask_qconsume"}
    if not all(name.endswith(".dist-info") for name in strangers):
        sys.exit(f"{wheel.name} holds more than the package: {sorted(strangers)}")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    require(IN_SDIST, names, sdist)


def require(wanted: tuple[str, ...], packed: list[str], archive: pathlib.Path) -> None:
    for prefix in wanted:
        if not any(name.startswith(prefix) for name in packed):
            sys.exit(f"{archive.name} lacks {prefix}")


def check_installed(wheel: pathlib.Path, scratch: pathlib.Path) -> None:
    venv.create(scratch / "venv", with_pip=True)
    programs = scratch / "venv" / "bin"
    (scratch / "app.py").write_text("import flask\n\napp = flask.Flask(__name__)\n")
    for command in (
        [programs / "python", "-m", "pip", "install", "--quiet", wheel.resolve()],
        [programs / "python", "-W", "error", "-c", "import flask_qconsume"],
        [programs / "flask", "qconsume", "--help"],
    ):
        subprocess.run(command, cwd=scratch, check=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
