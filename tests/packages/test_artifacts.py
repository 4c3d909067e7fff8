"""What is in the distributions: all that they need, and nothing else.

`tox -e packages` builds them and says where they are.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "walrus_core": ROOT,
    **{path.parent.name: path.parent for path in ROOT.glob("plugins/*/pyproject.toml")},
}
ARTIFACTS = Path(os.environ.get("WALRUS_ARTIFACTS", ""))
SOURCES = {".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h"}
GENERATED = re.compile(r"PKG-INFO|setup\.cfg|walrus_\w+\.egg-info/[\w-]+(\.txt)?")

pytestmark = pytest.mark.skipif(
    "WALRUS_ARTIFACTS" not in os.environ, reason="WALRUS_ARTIFACTS is not set: `tox -e packages` sets it"
)
every_distribution = pytest.mark.parametrize("name", sorted(FOLDERS))


def package_files(name: str) -> set[str]:
    """Return the files of the package in the repository, relative to the distribution's folder."""
    folder = FOLDERS[name]
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", name],
        cwd=folder,
        capture_output=True,
        check=True,
        text=True,
    )
    found = {line for line in listing.stdout.splitlines() if (folder / line).is_file()}
    assert found
    assert all(Path(path).suffix in SOURCES or path.endswith("py.typed") for path in found)
    return found


def sdist(name: str) -> tarfile.TarFile:
    (path,) = ARTIFACTS.glob(f"{name}-*.tar.gz")
    return tarfile.open(path)


def wheels(name: str) -> list[Path]:
    return sorted(ARTIFACTS.glob(f"{name}-*.whl"))


@every_distribution
def test_an_sdist_holds_what_the_wheel_is_built_from_and_nothing_else(name):
    with sdist(name) as archive:
        files = {member.name.partition("/")[2] for member in archive if not member.isdir()}
        assert all(member.isfile() or member.isdir() for member in archive)
    own = {"LICENSE", "README.md", "pyproject.toml", "MANIFEST.in"}
    if name == "walrus_core":
        own.add("setup.py")
    rest = {path for path in files if not GENERATED.fullmatch(path)}
    assert rest == package_files(name) | own


@every_distribution
def test_the_bytes_are_those_of_the_repository(name):
    with sdist(name) as archive:
        top = archive.getnames()[0].partition("/")[0]
        for path in package_files(name) | {"LICENSE", "README.md"}:
            file = archive.extractfile(f"{top}/{path}")
            assert file is not None
            assert file.read() == (FOLDERS[name] / path).read_bytes(), path


@every_distribution
def test_a_wheel_holds_the_modules_and_nothing_else(name):
    assert wheels(name)
    expected = {path for path in package_files(name) if Path(path).suffix in (".py", ".pyi", ".typed")}
    for wheel in wheels(name):
        with zipfile.ZipFile(wheel) as archive:
            files = {path for path in archive.namelist() if ".dist-info/" not in path}
            dist_info = {path.partition("/")[2] for path in archive.namelist()} - {""}
        compiled = {path for path in files if path.endswith((".so", ".pyd"))}
        assert files - compiled == expected, wheel.name
        assert "licenses/LICENSE" in dist_info
        if wheel.name.endswith("-py3-none-any.whl"):
            assert compiled == set(), wheel.name
        else:
            assert {path.partition(".")[0] for path in compiled} == {
                "walrus_core/_hot_c",
                "walrus_core/_front_c",
            }, wheel.name


@every_distribution
def test_there_is_a_pure_wheel_and_of_the_core_a_compiled_one(name):
    pure = [wheel for wheel in wheels(name) if wheel.name.endswith("-py3-none-any.whl")]
    assert len(pure) == 1
    assert (len(wheels(name)) > 1) == (name == "walrus_core")


@every_distribution
def test_every_file_is_readable_by_all_and_writable_by_none_but_the_owner(name):
    for wheel in wheels(name):
        with zipfile.ZipFile(wheel) as archive:
            modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
        # RECORD is written by the builder of wheels, with a mode of its own; pip writes it anew.
        modes = {path: mode for path, mode in modes.items() if not path.endswith(".dist-info/RECORD")}
        wrong = {path: oct(mode) for path, mode in modes.items() if mode & 0o022 or mode & 0o444 != 0o444}
        assert wrong == {}


@every_distribution
def test_the_readme_is_what_an_index_can_show(name):
    with sdist(name) as archive:
        top = archive.getnames()[0].partition("/")[0]
        file = archive.extractfile(f"{top}/PKG-INFO")
        assert file is not None
        text = io.TextIOWrapper(file, encoding="utf-8").read()
    assert "\nDescription-Content-Type: text/markdown\n" in text
    assert "\nLicense-Expression: MIT\n" in text
    assert (FOLDERS[name] / "README.md").read_text(encoding="utf-8").strip() in text
