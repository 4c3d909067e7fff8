"""Every way in which a plugin can be wrong, as people meet it: exit status 5 and one line with what to do."""

from __future__ import annotations

import json
import sys

import pytest

HOOK = "from walrus_core.hookspecs import hookimpl\nfrom walrus_core.memory import MemoryBackend\n"
BACKEND = HOOK + (
    "class Shiny(MemoryBackend):\n    name = 'shiny'\n    api = {api}\n"
    "@hookimpl\ndef walrus_register_backends():\n    return [Shiny]\n"
)


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """A function that puts a distribution on the path: ``offer("walrus-shiny", code)``, of one plugin."""

    def offer(distribution, code, *, group="walrus", value="plugin_shiny", name="shiny"):
        folder = tmp_path / f"site-{distribution}"
        info = folder / f"{distribution.replace('-', '_')}-9.9.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.9\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        (folder / f"{value.partition(':')[0]}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, value.partition(":")[0], raising=False)

    yield offer
    for module in ("plugin_shiny", "plugin_watcher"):
        sys.modules.pop(module, None)


def refused(run, *arguments):
    """Run a command that a plugin keeps from running; return the one line that it says."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (5, "")
    (line,) = result.stderr.splitlines()
    return line


def test_not_installed(run, log_dir):
    line = refused(run, "stats", "--backend", "shiny")
    assert line == "walrus: no backend 'shiny' is installed (installed: fd, mmap); pip install walrus-shiny"
    assert not log_dir.exists()


def test_two_of_one_name(run, offer):
    offer("walrus-shiny", BACKEND.format(api=1))
    offer("other-shiny", BACKEND.format(api=1))
    line = refused(run, "stats", "--backend", "shiny")
    assert "other-shiny, walrus-shiny; uninstall one of them" in line


@pytest.mark.parametrize(
    ("api", "advice"), [(99, "upgrade walrus-core"), (0, "upgrade the distribution of the backend")]
)
def test_for_another_api(run, offer, api, advice):
    offer("walrus-shiny", BACKEND.format(api=api))
    line = refused(run, "stats", "--backend", "shiny")
    assert f"implements backend API {api}, this core needs 1 to 1; {advice}" in line


def test_broken(run, offer):
    offer("walrus-shiny", "import a_module_that_is_not_there")
    line = refused(run, "stats", "--backend", "shiny")
    assert "reinstall or upgrade walrus-shiny: ModuleNotFoundError" in line


@pytest.mark.parametrize("advice", ["installed: mmap", "plugin 'fd' is blocked by configuration"])
def test_blocked_by_the_file(run, small_blocks, advice):
    with (small_blocks / "walrus.toml").open("a") as file:
        file.write('blocked_plugins = ["fd"]\n')
    assert json.loads(run("backends", "--json").stdout)["chosen"] == "mmap"
    assert "fd" not in [one["name"] for one in json.loads(run("backends", "--json").stdout)["backends"]]
    assert advice in refused(run, "stats", "--backend", "fd")


def test_a_blocked_plugin_is_not_imported(run, offer, small_blocks):
    offer("walrus-shiny", BACKEND.format(api=1))
    with (small_blocks / "walrus.toml").open("a") as file:
        file.write('blocked_plugins = ["shiny"]\n')
    assert run("backends").exit_code == 0
    assert "plugin_shiny" not in sys.modules


# --- observers ----------------------------------------------------------------------------------

WATCHER = HOOK + (
    "class Watcher:\n    def __init__(self, *, path):\n        self.path = path\n"
    "    @hookimpl\n    def walrus_recovered(self, report):\n"
    "        print('watched', report.path == self.path)\n"
)
LINE = 'observers = ["watcher"]\n'


def offer_watcher(offer, code=WATCHER, distribution="walrus-watcher"):
    offer(distribution, code, group="walrus.observers", value="plugin_watcher:Watcher", name="watcher")


def test_an_observer_of_the_file_is_told(run, offer, small_blocks, tmp_path):
    offer_watcher(offer)
    (tmp_path / "lines").write_text("one\n")
    with (small_blocks / "walrus.toml").open("a") as file:
        file.write(LINE)
    assert "watched True\n" in run("ingest", "lines").stdout


def test_observers_are_listed_and_not_imported(run, offer):
    offer_watcher(offer)
    facts = json.loads(run("backends", "--json").stdout)
    assert {"name": "watcher", "distribution": "walrus-watcher", "version": "9.9"} in facts["observers"]
    assert "watcher" not in [one["name"] for one in facts["backends"]]
    assert "walrus-watcher 9.9" in run("backends").stdout
    assert "plugin_watcher" not in sys.modules


def test_an_observer_that_is_not_there(run, small_blocks, tmp_path):
    (tmp_path / "lines").write_text("one\n")
    with (small_blocks / "walrus.toml").open("a") as file:
        file.write(LINE)
    line = refused(run, "ingest", "lines")
    assert line.startswith("walrus: no observer 'watcher' is installed")
    assert line.endswith("pip install walrus-watcher")


@pytest.mark.parametrize("blocked", ["", 'blocked_plugins = ["watcher"]\n'])
def test_an_observer_that_fails(run, offer, small_blocks, tmp_path, blocked):
    offer_watcher(offer, "class Watcher:\n    pass\n")
    (tmp_path / "lines").write_text("one\n")
    with (small_blocks / "walrus.toml").open("a") as file:
        file.write(LINE + blocked)
    line = refused(run, "ingest", "lines")
    advice = "is blocked by configuration" if blocked else "reinstall or upgrade walrus-watcher: TypeError"
    assert advice in line
    assert ("plugin_watcher" in sys.modules) == (not blocked)
