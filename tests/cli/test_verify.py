"""``walrus verify``: exit statuses, what people and programs see, the lock, and beside a writer."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from walrus_core import FsyncSchedule, Walrus, livecheck
from walrus_core import format as fmt

NEVER = FsyncSchedule.no_fsync()
WRITER = """
import random, sys
from walrus_core import FsyncSchedule, ReadConsistency, Walrus

chance = random.Random(int(sys.argv[3]))
wal = Walrus(
    sys.argv[1],
    backend=sys.argv[2],
    block_size=16384,
    blocks_per_segment=4,
    fsync_schedule=FsyncSchedule.milliseconds(10),
    consistency=ReadConsistency.at_least_once(20),
)
wal.append_for_topic("a", b"up")
wal.sync()
print("up", flush=True)
while True:
    topic, kind = chance.choice("abc"), chance.random()
    if kind < 0.03:
        wal.append_for_topic(topic, chance.randbytes(chance.randrange(50_000)))
    elif kind < 0.3:
        sizes = [chance.randrange(3000) for _ in range(chance.randrange(20))]
        wal.batch_append_for_topic(topic, [chance.randbytes(size) for size in sizes])
    elif kind < 0.6:
        wal.append_for_topic(topic, chance.randbytes(chance.randrange(500)))
    else:
        wal.batch_read_for_topic(chance.choice("ab"), 30_000)
"""


@pytest.fixture
def closed(small_blocks: Path) -> Path:
    """A closed log: topic t of 60 entries over several blocks."""
    with Walrus.builder().data_dir(small_blocks).fsync_schedule(NEVER).build() as wal:
        for number in range(0, 60, 10):
            wal.batch_append_for_topic(
                "t", [b"<entry %d>" % n + b"." * 900 for n in range(number, number + 10)]
            )
    return small_blocks


def damage_payload(directory: Path, number: int) -> tuple[str, int]:
    """Flip a bit of an entry; returns the file and the place of its frame."""
    for path in directory.glob("*.wal"):
        data = bytearray(path.read_bytes())
        at = data.find(b"<entry %d>" % number)
        if at >= 0:
            data[at + 3] ^= 4
            path.write_bytes(data)
            return path.name, at - fmt.FRAME_HEADER_SIZE
    raise AssertionError(f"entry {number} is nowhere")


def state_of(directory: Path) -> dict[str, tuple[bytes, int]]:
    """Names, bytes and times of change of all files."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.iterdir()}


def test_a_sound_log(run, closed):
    result = run("verify")
    assert (result.exit_code, result.stderr) == (0, "")
    counts, verdict = result.stdout.splitlines()
    assert counts.startswith("1 topic, 60 sound entries, ")
    assert verdict == f"{closed}: sound; it was closed cleanly"
    facts = json.loads(run("verify", "--json").stdout)
    assert (facts["verdict"], facts["closed_cleanly"], facts["damage"], facts["torn"]) == (
        "sound",
        True,
        [],
        [],
    )
    (topic,) = facts["topics"]
    assert (topic["name"], topic["entry_count"], topic["next_offset"]) == ("t", 60, 60)


def test_a_damaged_entry_is_told_with_its_place(run, closed):
    name, at = damage_payload(closed, 33)
    result = run("verify")
    assert result.exit_code == 1
    (line,) = (line for line in result.stdout.splitlines() if "payload checksum" in line)
    assert line.split() == ["payload", "checksum", "t", "[33,", "34)", name, str(at)]
    assert result.stdout.splitlines()[-1].startswith(f"{closed}: damaged; ")
    result = run("verify", "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["verdict"]) == (1, "damaged")
    assert facts["damage"] == [
        {
            "kind": "payload checksum",
            "path": str(closed / name),
            "at_bytes": at,
            "topic": "t",
            "cursor": None,
            "first_offset": 33,
            "end_offset": 34,
            "remedy": None,
        }
    ]


def test_a_killed_log_is_sound_and_its_tail_is_told(run, small_blocks, tmp_path):
    """A copy of an open log is what the death of its process leaves; here with the last frame half there."""
    killed = tmp_path / "killed"
    with Walrus.builder().data_dir(small_blocks).fsync_schedule(NEVER).build() as wal:
        wal.append_for_topic("t", b"x" * 50)
        wal.append_for_topic("t", b"y" * 50)
        shutil.copytree(small_blocks, killed)
    (path,) = killed.glob("*.wal")
    data = bytearray(path.read_bytes())
    at = data.find(b"y" * 50)
    data[at + 25 : at + 50] = bytes(25)
    path.write_bytes(data)
    result = run("verify", "--json", "--data-dir", killed)
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["verdict"]) == (0, "sound")
    (torn,) = facts["torn"]
    assert (torn["kind"], torn["topic"], torn["first_offset"]) == ("torn tail", "t", 1)
    assert torn["at_bytes"] == at - fmt.FRAME_HEADER_SIZE
    assert "left by a crash" in run("verify", "--data-dir", killed).stdout


def test_nothing_is_written_not_even_a_lock_file(run, closed):
    (closed / "LOCK").unlink()
    damage_payload(closed, 3)
    before = state_of(closed)
    run("verify")
    run("verify", "--live")
    run("repair", "--dry-run")
    assert state_of(closed) == before


@pytest.mark.parametrize("command", [["verify"], ["repair"], ["repair", "--dry-run"]])
def test_a_log_in_use_is_not_verified(run, closed, command):
    with Walrus(str(closed)):
        result = run(*command)
        assert result.exit_code == 2 and "is already open in" in result.stderr
        facts = json.loads(run(*command, "--json").stdout)
        assert (facts["verdict"], facts["error_type"]) == ("not verified", "LockedError")
        assert run("verify", "--live").exit_code == 0


def test_a_log_in_use_by_another_process(run, start, closed):
    with start("ingest", "/dev/stdin", "--topic", "other", stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        # Not by opening the log here: that could keep the other one out.
        while (closed / "LOCK").read_text() != str(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert run("verify").exit_code == 2
        assert run("verify", "--live").exit_code == 0
        process.kill()


def test_a_writer_that_comes_meanwhile_is_told(run, closed, monkeypatch):
    """Without a LOCK file there is nothing to hold, so the end of a verify looks whether one came."""
    from walrus_core.cli import damage

    (closed / "LOCK").unlink()
    verify = damage.verify_directory

    def slowly(*arguments, **options):
        report = verify(*arguments, **options)
        (closed / "LOCK").touch()
        return report

    monkeypatch.setattr(damage, "verify_directory", slowly)
    result = run("verify")
    assert result.exit_code == 2 and "meanwhile" in result.stderr


def test_two_may_verify_at_once_and_no_writer_meanwhile(run, start, closed, monkeypatch):
    from walrus_core.cli import damage

    verify = damage.verify_directory
    seen = []

    def beside(*arguments, **options):
        with start("verify") as other:
            other.communicate(timeout=60)
        with start("stats") as writer:
            writer.communicate(timeout=60)
        seen.append((other.returncode, writer.returncode))
        return verify(*arguments, **options)

    monkeypatch.setattr(damage, "verify_directory", beside)
    assert run("verify").exit_code == 0
    # Windows has no shared lock here: the second one is told to wait, like a writer.
    assert seen == [(0 if importlib.util.find_spec("fcntl") else 2, 4)]


def test_where_there_is_no_log(run, log_dir):
    for arguments in (["verify"], ["verify", "--live"], ["repair"]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"walrus: there is no log in {log_dir}\n"
    assert not log_dir.exists()


def test_a_backend_that_is_not_there(run, closed):
    result = run("verify", "--backend", "nope")
    assert result.exit_code == 2 and "no backend 'nope'" in result.stderr


def test_a_file_that_cannot_be_opened(run, closed):
    path = closed / "cursors.db"
    path.rename(closed.parent / "elsewhere")
    path.symlink_to(closed.parent / "elsewhere")
    result = run("verify")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1


def test_names_cannot_steer_the_terminal(run, small_blocks):
    with Walrus.builder().data_dir(small_blocks).build() as wal:
        wal.append_for_topic("x\n\x1b[31m", b"<entry 0>")
    damage_payload(small_blocks, 0)
    result = run("verify")
    assert result.exit_code == 1 and "\x1b" not in result.stdout and "x\\n\\x1b[31m" in result.stdout


@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_on_a_medium_that_cannot_be_written(run, closed, tmp_path, backend):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    target = tmp_path / "mounted"
    target.mkdir()
    if subprocess.run(["mount", "--bind", str(closed), str(target)], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        remount = ["mount", "-o", "remount,bind,ro", str(target)]
        if subprocess.run(remount, capture_output=True).returncode:
            pytest.skip("a read-only remount is not allowed here")
        with pytest.raises(OSError, match="Read-only"):
            (target / "x").touch()
        for extra in ([], ["--live"]):
            result = run("verify", "--data-dir", target, "--backend", backend, *extra)
            assert (result.exit_code, result.stderr) == (0, "")
        assert run("repair", "--dry-run", "--data-dir", target).exit_code == 0
    finally:
        subprocess.run(["umount", str(target)], check=True)


# --- beside a writer --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["fd", "mmap"])
def test_beside_a_writer_nothing_is_ever_called_damage(run, log_dir, tmp_path, backend):
    """Blocks and segments come and go under it: small blocks, two consumed topics, large entries."""
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    command = [sys.executable, "-c", WRITER, str(log_dir), backend, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path) as writer:
        try:
            assert writer.stdout is not None and writer.stdout.readline() == b"up\n"
            looks = blocks = 0
            segments: set[str] = set()
            end_s = time.monotonic() + 4
            while time.monotonic() < end_s:
                result = run("verify", "--live", "--json", "--backend", backend)
                facts = json.loads(result.stdout)
                assert (result.exit_code, facts["damage"], facts["unreadable"]) == (0, [], []), seed
                looks += 1
                blocks += facts["blocks"]
                segments |= {path.name for path in log_dir.glob("*.wal")}
            assert writer.poll() is None
        finally:
            writer.kill()
    assert looks >= 2 and blocks > 0 and len(segments) > 2
    assert run("verify", "--backend", backend).exit_code == 0


def test_beside_a_writer_real_damage_is_found(run, closed):
    with Walrus.builder().data_dir(closed).fsync_schedule(NEVER).build() as wal:
        name, at = damage_payload(closed, 5)
        (lost,) = json.loads(run("verify", "--live", "--json").stdout)["damage"]
        assert (lost["path"], lost["at_bytes"], lost["first_offset"]) == (str(closed / name), at, 5)
        assert wal.append_for_topic("t", b"more") == 60


def test_what_a_writer_changes_meanwhile_is_looked_at_again(monkeypatch):
    """Damage that any later look does not find was the writer at work."""
    from walrus_core.findings import DAMAGE, Finding

    monkeypatch.setattr(livecheck, "PAUSES_S", (0.0,) * 3)
    lasting = Finding(category=DAMAGE, kind="block mark", path="p", at_bytes=1)
    passing = Finding(category=DAMAGE, kind="block mark", path="p", at_bytes=2)
    looks = [[lasting, passing], [lasting, passing], [lasting], [lasting, passing]]
    assert livecheck.settle(lambda: looks.pop(0)) == [lasting]
    assert looks == []
