"""Directories written by released formats are read, entry for entry, by every backend."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from walrus_core import Walrus
from walrus_core import format as fmt
from walrus_core.verify import verify_directory

from .make import VARIANTS, expectation, payload

HERE = Path(__file__).resolve().parent
ARCHIVES = sorted(HERE.glob("v*.tar.xz"))
BACKENDS = ("fd", "mmap")


def make_backend(name: str) -> object:
    if name == "fd":
        return pytest.importorskip("walrus_fd.backend", reason="walrus-fd is not installed").FdBackend()
    return pytest.importorskip("walrus_mmap.backend", reason="walrus-mmap is not installed").MmapBackend()


@pytest.fixture
def golden(tmp_path, archive):
    directory = tmp_path / "log"
    directory.mkdir()
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            source = tar.extractfile(member)
            assert source is not None
            with (directory / member.name).open("wb") as target:
                shutil.copyfileobj(source, target)
    expected = json.loads(archive.with_name(archive.name.replace(".tar.xz", ".json")).read_text("ascii"))
    return directory, expected


def test_there_are_archives_of_the_present_version():
    names = {archive.name for archive in ARCHIVES}
    assert {f"v{fmt.VERSION}-{variant}.tar.xz" for variant in VARIANTS} <= names


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_everything_is_found(golden, backend, archive):
    directory, expected = golden
    with Walrus(directory, backend=make_backend(backend)) as wal:
        assert wal.recovery_report.damages == ()
        assert expectation(wal) == expected
        assert [cut.topic for cut in wal.recovery_report.cuts] == (
            ["small"] if "killed" in archive.name else []
        )


@pytest.mark.parametrize("reader", BACKENDS)
@pytest.mark.parametrize("writer", BACKENDS)
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_a_golden_log_goes_on(golden, writer, reader, archive):
    directory, expected = golden
    with Walrus(directory, backend=make_backend(writer)) as wal:
        for name, facts in expected.items():
            assert wal.append_for_topic(name, payload(1, 100)) == facts["next"]
    with Walrus(directory, backend=make_backend(reader)) as wal:
        for name, facts in expected.items():
            entries = list(wal.topic(name))
            assert len(entries) == len(facts["entries"]) + 1
            assert entries[-1].data == payload(1, 100)
            assert entries[-1].offset == facts["next"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_a_golden_log_is_sound(golden, backend, archive):
    directory, expected = golden
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    report = verify_directory(make_backend(backend), str(directory))
    assert report.is_sound and report.closed_cleanly == ("closed" in archive.name)
    assert [finding.kind for finding in report.findings] == (
        ["torn tail"] if "killed" in archive.name else []
    )
    counted = {topic.name: topic.entry_count for topic in report.topics}
    assert counted == {name: len(facts["entries"]) for name, facts in expected.items()}
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
