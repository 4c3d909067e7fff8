"""``walrus repair`` as a command: what it says, its statuses, that a dry run changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from walrus_core import Walrus
from walrus_core import format as fmt


@pytest.fixture
def broken(small_blocks: Path) -> Path:
    """A closed log of one topic, read to entry 2, of which both states of the cursor are bad, and the copy
    of the segment's header."""
    with Walrus(str(small_blocks), block_size=16384, blocks_per_segment=4) as wal:
        wal.batch_append_for_topic("t", [b"1", b"2", b"3"])
        wal.read_next("t")
        wal.read_next("t")
    patch(small_blocks / "cursors.db", cursor_page(small_blocks), b"\xff" * 1024)
    patch(small_blocks / f"{1:020d}.wal", fmt.SEGMENT_COPY_AT, bytes(512))
    return small_blocks


def patch(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def cursor_page(directory: Path) -> int:
    data = (directory / "cursors.db").read_bytes()
    return data.index(b"tdefault") // fmt.PAGE_SIZE * fmt.PAGE_SIZE


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_what_needs_no_option_is_done_and_the_rest_is_told(run, broken):
    result = run("repair")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    segment = f"{1:020d}.wal"
    assert lines[0].startswith(
        f"did: write {segment}, 4096 bytes at 32768 (segment header, one of two copies"
    )
    (folder,) = broken.glob("repair-*Z")
    assert lines[1] == f"what was there before is in {folder}"
    (left,) = (line for line in lines if "cursor states" in line)
    assert left.endswith("walrus repair --reset-cursors")
    assert (folder / f"0001-{segment}-32768").read_bytes() == bytes(fmt.PAGE_SIZE)
    result = run("repair", "--reset-cursors")
    assert result.exit_code == 0 and "damage that is left" not in result.stdout
    assert run("verify").exit_code == 0
    assert run("read", "t").stdout == "123"
    result = run("repair", "--reset-cursors")
    assert (result.exit_code, result.stdout) == (0, "nothing to repair\n")


def test_a_dry_run_changes_nothing(run, broken):
    before = files_of(broken)
    result = run("repair", "--dry-run", "--reset-cursors")
    assert result.exit_code == 0
    assert [line.split()[:3] for line in result.stdout.splitlines()] == [
        ["would:", "write", f"{1:020d}.wal,"],
        ["would:", "replace", "cursors.db,"],
    ]
    assert files_of(broken) == before and not list(broken.glob("repair-*"))


def cut_short(directory: Path) -> None:
    """Take the end of the first segment, from the middle of its first block on."""
    first = min(directory.glob("*.wal"))
    with first.open("r+b") as file:
        file.truncate(fmt.SEGMENT_HEADER_SIZE + 8192)


def lose_cursors(directory: Path) -> None:
    (directory / "cursors.db").unlink()


def add_foreign(directory: Path) -> None:
    """Put a segment of another log beside the log's own."""
    other = directory.with_name("other")
    with Walrus(str(other), block_size=16384, blocks_per_segment=4) as wal:
        wal.append_for_topic("t", b"foreign")
    (segment,) = other.glob("*.wal")
    segment.rename(directory / f"{9:020d}.wal")


@pytest.mark.parametrize(
    ("damages", "leaves"),
    [
        ([], False),
        ([lose_cursors], False),
        ([lose_cursors, cut_short], True),
        ([cut_short], True),
        ([add_foreign], False),
        ([lose_cursors, add_foreign, cut_short], True),
    ],
    ids=lambda value: "-".join(one.__name__ for one in value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("options", [[], ["--reset-cursors"], ["--rebuild-cursors", "--reset-cursors"]])
def test_a_dry_run_says_what_the_repair_will_leave(run, broken, damages, leaves, options):
    for damage in damages:
        damage(broken)
    before = files_of(broken)
    tried = run("repair", "--dry-run", "--json", *options)
    assert files_of(broken) == before and not list(broken.glob("repair-*"))
    done = run("repair", "--json", *options)
    assert tried.exit_code == done.exit_code
    planned, facts = json.loads(tried.stdout), json.loads(done.stdout)
    assert (planned["left"], planned["steps"]) == (facts["left"], facts["steps"])
    if len(options) == 2:
        assert done.exit_code == leaves


def test_for_programs(run, broken):
    facts = json.loads(run("repair", "--json", "--reset-cursors").stdout)
    assert [(step["action"], step["at_bytes"]) for step in facts["steps"]] == [
        ("write", 32768),
        ("replace", 0),
    ]
    assert (facts["left"], facts["dry_run"]) == ([], False)
    manifest = json.loads((Path(facts["folder"]) / "manifest.json").read_text())
    assert [step["why"] for step in manifest["steps"]] == [step["why"] for step in facts["steps"]]
    assert (Path(facts["folder"]) / "done.json").exists()


def test_a_lost_cursors_db(run, broken):
    (broken / "cursors.db").unlink()
    assert run("stats").exit_code == 3
    assert run("repair", "--rebuild-cursors").exit_code == 0
    result = run("stats")
    assert (result.exit_code, "1 topic, 3 entries (3 unread)" in result.stdout) == (0, True)


def test_the_folder_is_not_the_logs(run, broken):
    """Neither an open nor a verify calls it foreign."""
    run("repair", "--reset-cursors")
    with Walrus(str(broken)) as wal:
        assert wal.recovery_report.foreign_files == ()
    assert json.loads(run("verify", "--json").stdout)["note"] == []
