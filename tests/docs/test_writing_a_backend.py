"""The page docs/writing-a-backend.md is a project: its files are written out and used as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from walrus_core.backend import BACKEND_API, BACKEND_API_OLDEST, Capabilities

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "writing-a-backend.md"
EXAMPLE = ROOT / "docs" / "examples" / "walrus_sealed"
FENCE = re.compile(r"^```\w+ file=(\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the project of the page is of POSIX")


def files_of_the_page() -> dict[str, str]:
    return dict(FENCE.findall(PAGE.read_text(encoding="utf-8")))


def install(project: Path, folder: Path) -> None:
    """Put into ``folder`` what an installation would: a distribution with its entry points."""
    facts = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{facts['name'].replace('-', '_')}-{facts['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n"
    )
    points = facts["entry-points"]["walrus"]
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[walrus]", *lines, ""]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page, with its package installed."""
    folder = tmp_path_factory.mktemp("walrus-plain")
    for name, text in files_of_the_page().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "walrus_plain" / "__init__.py").write_text("")
    install(folder, folder)
    return folder


def run(folder: Path, *command: str, paths: tuple[Path, ...] = ()) -> str:
    """Run Python in the folder. Returns: standard output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WALRUS_")}
    if "WALRUS_PURE" in os.environ:
        environment["WALRUS_PURE"] = os.environ["WALRUS_PURE"]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths or (folder,)))
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def counted(said: str, word: str) -> int:
    found = re.search(rf"(\d+) {word}", said)
    return int(found[1]) if found else 0


def test_the_page_has_the_files_it_names():
    assert set(files_of_the_page()) == {
        "walrus_plain/backend.py",
        "walrus_plain/plugin.py",
        "pyproject.toml",
        "tests/test_conformance.py",
        "use.py",
        "log/walrus.toml",
    }


def test_its_backend_passes_the_kit(project):
    said = run(project, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests")
    assert counted(said, "passed") >= 40, said
    assert "the backend plain does not declare 'discard'" in said
    assert "no power_loss was given, so no power can be cut" in said
    assert 60 <= counted(said, "passed") + counted(said, "skipped") <= 80, "the page says some 70"


def test_it_is_used_as_the_page_says(project):
    numbers = "".join(f"{number}\n" for number in range(1, 1001))
    log = ("--data-dir", "log")
    (project / "numbers.txt").write_text(numbers)
    ingest = ("ingest", "--backend", "plain", *log, "--topic", "numbers", "numbers.txt")
    run(project, "-m", "walrus_core.cli", *ingest)
    assert run(project, "use.py") == "1000\n"
    # walrus.toml names it: no option, no builder.
    found = run(project, "-m", "walrus_core.cli", "read", *log, "numbers")
    assert found.splitlines() == [str(number) for number in range(1, 1002)]
    assert "plain" in run(project, "-m", "walrus_core.cli", "backends")
    bench = ("bench", "--backend", "plain", "--seconds", "0.3", "--data-dir", "log")
    assert "suits this disk: plain" in run(project, "-m", "walrus_core.cli", *bench)


def test_the_page_says_what_the_contract_says():
    text = PAGE.read_text(encoding="utf-8")
    for flag in (field.name for field in Capabilities.__attrs_attrs__):
        assert f"| `{flag}`" in text, f"the table of capabilities lacks {flag}"
    (number,) = re.findall(r"^    api = (\d+)$", text, re.MULTILINE)
    assert BACKEND_API_OLDEST <= int(number) <= BACKEND_API


@pytest.mark.timeout(600)
def test_the_example_passes_its_own_tests(tmp_path):
    pytest.importorskip("cryptography", reason="the example needs cryptography")
    pytest.importorskip("walrus_fd", reason="the example goes around walrus-fd")
    install(EXAMPLE, tmp_path)
    command = ("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", str(EXAMPLE), "-c")
    said = run(
        tmp_path, *command, str(EXAMPLE / "pyproject.toml"), str(EXAMPLE / "tests"), paths=(tmp_path, EXAMPLE)
    )
    assert counted(said, "passed") >= 100, said
