"""The benchmark suite: that it runs, and the shape of what it says. Its figures decide nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from walrus_core import hot

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--quick", "--factor", "0.0002", "--rounds", "1")
TIMES = "\N{MULTIPLICATION SIGN}"
OURS = {"fd", "mmap"} if hot.COMPILED else {"fd, pure Python", "mmap, pure Python"}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package ``benchmarks`` can be imported."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def suite(tmp_path: Path) -> Any:
    """``suite(*arguments)``: ``python -m benchmarks`` as a process; its result."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        paths = [path for path in sys.path if path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "benchmarks", "--dir", str(tmp_path), *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)

    return run


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder with the page of the documentation, which may be written."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "benchmarks.md").write_bytes((ROOT / "docs" / "benchmarks.md").read_bytes())
    return folder


def made_up(value: float = 1000.0) -> dict[str, Any]:
    """Figures of one work that nobody measured."""
    spread = {"median": value, "low": value / 2, "high": value * 2, "count": 3}
    contender = {**spread, "rounds": [value], "seconds": 0.5, "entries": 7, "ratios": {}, "facts": {}}
    bar = {"ours": "mmap", "against": "LMDB", "fact": None, "at_least": 5.0, "at_most": None}
    return {
        "schema": 1,
        "started": "2026-01-02T03:04:05+00:00",
        "seconds": 61.0,
        "machine": {
            "processor": "<Processor> & Co",
            "cores": 2,
            "memory_bytes": 2**31,
            "system": "Linux",
            "kernel": "6.1",
            "python": "CPython 3.11",
            "frame_code": "compiled",
        },
        "file_system": {"kind": "ext4", "device": "/dev/x", "free_bytes": 1},
        "versions": {"lmdb": "1.0"},
        "run": {"rounds": 3, "factor": 1.0, "full": True, "warmed_bytes": 2**20},
        "works": [
            {
                "name": "append-256",
                "title": "append 256 B",
                "unit": "entries/s",
                "note": "",
                "references": ["LMDB"],
                "contenders": [
                    {**contender, "name": "mmap", "group": "ours", "ratios": {"LMDB": {"median": 5.5}}},
                    {**contender, "name": "LMDB", "group": "database"},
                ],
                "bars": [
                    {
                        **bar,
                        "full_only": False,
                        "measured": {"median": 5.5, "low": 5.1, "high": 6.0, "count": 3},
                        "met": True,
                    }
                ],
            }
        ],
        "left_out": [{"work": "in-flight", "contender": None, "reason": "not there", "failed": False}],
    }


def test_everything_runs_at_a_tiny_size(suite, tmp_path):
    done = suite(*TINY, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    works = {work["name"]: work for work in figures["works"]}
    for name in ("append-256", "batch-256", "read-next-256", "read-batch-256"):
        found = {one["name"]: one for one in works[name]["contenders"]}
        assert found.keys() >= OURS
        assert all(0 < one["low"] <= one["median"] <= one["high"] for one in found.values())
        assert all(one["seconds"] > 0 and one["entries"] >= 1 for one in found.values())
    if hot.COMPILED:
        assert {"fd, pure Python", "mmap, CRC-32C"} <= {
            one["name"] for one in works["append-256"]["contenders"]
        }
        assert works["topics"]["contenders"][0]["facts"]["descriptors"] >= 1
    assert all(bar["met"] is None for work in works.values() for bar in work["bars"]), "too small to judge"
    assert {"consumer": "needs --full"}.items() <= {
        out["work"]: out["reason"] for out in figures["left_out"]
    }.items()
    for library in ("lmdb", "rocksdict", "persist-queue", "diskcache"):
        is_here = library in figures["versions"]
        told = [out for out in figures["left_out"] if out["reason"].startswith(f"{library} is not installed")]
        assert bool(told) != is_here
    for work in works:
        assert f"### {work}: " in done.stdout


def test_the_large_work_runs_at_a_tiny_size(suite, tmp_path):
    if not hot.COMPILED:
        pytest.skip("the contenders of this work run compiled only")
    done = suite(*TINY[1:], "--full", "consumer", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    work = json.loads((tmp_path / "figures.json").read_text())["works"][0]
    for one in work["contenders"]:
        assert one["facts"].keys() == {
            "anonymous memory grown by, MiB",
            "mapped memory at most, MiB",
            "segments on disk",
        }


def test_works_and_contenders_are_chosen_by_name(suite, tmp_path):
    name = sorted(OURS)[0]
    done = suite(*TINY, "append-256", "--contender", name, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [work["name"] for work in figures["works"]] == ["append-256"]
    assert [one["name"] for one in figures["works"][0]["contenders"]] == [name]
    assert "append-256" in suite("--list").stdout
    for wrong in (["no-such-work"], ["--contender", "nobody"], ["--rounds", "0"], ["--factor", "-1"]):
        assert suite(*wrong).returncode == 2


def test_figures_go_into_the_documentation(suite, tmp_path, page):
    (tmp_path / "figures.json").write_text(json.dumps(made_up()))
    before = (page / "benchmarks.md").read_text()
    for value in (1000.0, 2000.0):  # the second time over the first
        (tmp_path / "figures.json").write_text(json.dumps(made_up(value)))
        done = suite("--from-json", tmp_path / "figures.json", "--write-docs", "--docs", page)
        assert done.returncode == 0, done.stderr
    after = (page / "benchmarks.md").read_text()
    assert after.split("<!--")[0] == before.split("<!--")[0]
    assert after.split("-->")[2] == before.split("-->")[2]
    assert "| **walrus mmap** | 2.00 k/s | 1.00 k/s to 4.00 k/s | 5.50 | 0.5 s |" in after
    assert f"| at least 5 {TIMES} LMDB | 5.50 {TIMES} (5.10 {TIMES} to 6.00 {TIMES}) | yes |" in after
    assert "- not there: in-flight." in after
    chart = (page / "benchmarks.svg").read_text()
    assert "&lt;Processor&gt; &amp; Co" in chart
    assert {"walrus mmap", "LMDB", "2.00 k/s"} <= {
        node.text for node in ElementTree.fromstring(chart).iter() if node.text
    }


def test_a_page_without_markers_stays_as_it_is(modules, page):
    from benchmarks.docs import write_docs

    (page / "benchmarks.md").write_text("no markers")
    with pytest.raises(ValueError, match="needs the lines"):
        write_docs(made_up(), page)
    assert [path.name for path in page.iterdir()] == ["benchmarks.md"]
    assert (page / "benchmarks.md").read_text() == "no markers"


def test_ratios_are_taken_within_rounds_and_bars_judged_by_their_median(modules):
    from benchmarks.figures import bar_figures
    from benchmarks.model import Bar, Sample, Scale

    def samples(*values: float) -> list[Sample]:
        return [Sample(value=value, seconds=1.0, count=1, facts={"twice": value * 2}) for value in values]

    found = {"mmap": samples(10, 40, 90), "LMDB": samples(10, 20, 30)}
    whole = Scale()
    reached = bar_figures(Bar(ours="mmap", against="LMDB", at_least=2), found, whole)
    assert reached["measured"] == {"median": 2.0, "low": 1.0, "high": 3.0, "count": 3}
    assert reached["met"] is True
    assert bar_figures(Bar(ours="mmap", against="LMDB", at_least=2.1), found, whole)["met"] is False
    assert bar_figures(Bar(ours="mmap", at_most=40), found, whole)["met"] is True
    assert bar_figures(Bar(ours="mmap", fact="twice", at_most=79), found, whole)["met"] is False
    assert bar_figures(Bar(ours="mmap", against="nobody", at_least=1), found, whole)["measured"] is None
    large = Bar(ours="mmap", at_most=40, full_only=True)
    assert [bar_figures(large, found, scale)["met"] for scale in (whole, Scale(full=True))] == [None, True]
    assert bar_figures(Bar(ours="mmap", at_most=40), found, Scale(factor=0.5))["met"] is None


def test_a_contender_that_fails_is_told_and_the_others_go_on(modules, tmp_path):
    from benchmarks.model import LIMIT, Contender, Place, Sample, Scale, Work, rate
    from benchmarks.suite import Suite

    def fail(_place: Place) -> Sample:
        raise OSError("no such luck")

    def fine(place: Place) -> Sample:
        with place.fresh() as directory:
            (directory / "file").write_bytes(b"x")
        works_here = [path.name for path in place.path.parents[1].iterdir()]
        assert works_here == [place.path.parent.name], "an earlier work left files behind"
        return rate(place.count(100), 1.0)

    contenders = [
        Contender(name="bad", group=LIMIT, run=fail),
        Contender(name="good", group=LIMIT, run=fine, slowness=10),
        Contender(name="absent", group=LIMIT, run=fine, needs=("no_such_method",)),
    ]
    works = [Work(name=name, title="t", unit="entries/s", contenders=contenders) for name in ("w", "x")]
    suite = Suite(works=works, scale=Scale(), rounds=3, directory=tmp_path, tell=lambda _message: None)
    for result in suite.run():
        assert list(result.samples) == ["good"]
        assert [sample.value for sample in result.samples["good"]] == [10.0, 10.0, 10.0]
    told = [(out.work, out.contender, out.reason, out.failed) for out in suite.left_out]
    absent = "this walrus_core has no Walrus.no_such_method"
    assert sorted(told) == [
        (name, *about)
        for name in ("w", "x")
        for about in (("absent", absent, False), ("bad", "OSError: no such luck", True))
    ]
    assert list(tmp_path.iterdir()) == []


def test_every_contender_of_a_bar_exists(modules):
    from benchmarks.chart import PANELS, SHOWN
    from benchmarks.works import WORKS

    for work in WORKS.values():
        names = [one.name for one in work.contenders]
        assert len(set(names)) == len(names)
        for bar in work.bars:
            assert bar.ours in names
            assert bar.against is None or bar.against in names
            assert (bar.at_least is None) != (bar.at_most is None)
    shown = {one.name for name in PANELS for one in WORKS[name].contenders}
    assert shown >= SHOWN.keys()
