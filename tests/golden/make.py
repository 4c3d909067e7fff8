"""Write the golden directories of the present format version: ``python tests/golden/make.py``.

Each is a log with fixed clock and randomness, packed with what a reader must find in it. They
are made once for a version of the format and kept for good; a later release must read them.
An archive that exists is never overwritten.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from walrus_core import FsyncSchedule, ReadConsistency, Walrus
from walrus_core import format as fmt

HERE = Path(__file__).resolve().parent
GEOMETRY = {"block_size": 16384, "blocks_per_segment": 3}


def payload(seed: int, length: int) -> bytes:
    """Return ``length`` bytes that look random and depend on ``seed`` alone."""
    stream = (hashlib.sha256(b"%d:%d" % (seed, part)).digest() for part in itertools.count())
    out = b""
    while len(out) < length:
        out += next(stream)
    return out[:length]


def open_log(path: Path, checksum: str) -> Walrus:
    """Open a log that writes the same bytes every time."""
    ticks = itertools.count(1_700_000_000_000_000_000, 1000)
    numbers = itertools.count(1)
    return Walrus(
        path,
        backend="mmap",
        checksum=checksum,
        consistency=ReadConsistency.strictly_at_once(),
        fsync_schedule=FsyncSchedule.no_fsync(),
        clock=lambda: next(ticks),
        random_bytes=lambda count: hashlib.sha256(b"%d" % next(numbers)).digest()[:count],
        **GEOMETRY,
    )


def fill(wal: Walrus) -> None:
    """Append what every golden log holds: small and empty entries, batches over blocks, a large one."""
    for seed in range(10):
        wal.append_for_topic("small", payload(seed, seed * 7))
    wal.batch_append_for_topic("batches", [payload(seed, 2500) for seed in range(20)])
    wal.append_for_topic("große Einträge 🦭", payload(99, 40_000))
    wal.append_for_topic("große Einträge 🦭", b"behind it")
    wal.batch_append_for_topic("batches", [b"", b"x" * 3, payload(5, 900)])
    wal.append_for_topic("n" * fmt.TOPIC_NAME_MAX_BYTES, b"longest name")
    for _ in range(4):
        wal.read_next("small")
    wal.batch_read_for_topic("batches", 2500 * 12, cursor="audit")
    wal.batch_read_for_topic("batches", 2500 * 10)
    wal.mark_topic_clean("small")


def expectation(wal: Walrus) -> dict[str, object]:
    """Return what a reader must find: every entry, the cursors, the clean marks."""
    topics = {}
    for name in wal.topics():
        topics[name] = {
            "oldest": wal.oldest_offset(name),
            "next": wal.next_offset(name),
            "default": wal.cursor_offset(name),
            "audit": wal.cursor_offset(name, "audit"),
            "clean": wal.topic_is_clean(name),
            "entries": [[e.offset, e.timestamp, hashlib.sha256(e.data).hexdigest()] for e in wal.topic(name)],
        }
    return topics


def pack(name: str, directory: Path, expected: dict[str, object]) -> None:
    """Write ``name.tar.xz`` and ``name.json``; the archive has no times and no owners."""
    archive = HERE / f"{name}.tar.xz"
    if archive.exists():
        print(f"{archive.name} exists and stays as it is")
        return
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(directory.iterdir()):
            if path.name == fmt.LOCK_NAME:
                continue
            data = path.read_bytes()
            member = tarfile.TarInfo(path.name)
            member.size = len(data)
            member.mode = 0o600
            tar.addfile(member, io.BytesIO(data))
    text = json.dumps(expected, indent=1, ensure_ascii=True)
    (HERE / f"{name}.json").write_text(text + "\n", encoding="ascii")
    print(f"{archive.name}: {archive.stat().st_size} bytes")


def make_closed(checksum: str) -> Callable[[Path], dict[str, object]]:
    """A log that was closed cleanly."""

    def make(path: Path) -> dict[str, object]:
        with open_log(path, checksum) as wal:
            fill(wal)
            wal.sync()
            return expectation(wal)

    return make


def make_killed(path: Path) -> dict[str, object]:
    """A log as the death of its process leaves it: not closed, and the last frame half written."""
    live = path.with_name("live")
    with open_log(live, "fnv1a64") as wal:
        fill(wal)
        wal.sync()
        expected = expectation(wal)
        wal.append_for_topic("small", b"torn" * 30)
        shutil.copytree(live, path)
    for segment in sorted(path.glob("*.wal")):
        data = bytearray(segment.read_bytes())
        at = data.find(b"torn" * 30)
        if at >= 0:
            data[at + 60 : at + 120] = bytes(60)
            segment.write_bytes(data)
    return expected


VARIANTS: dict[str, Callable[[Path], dict[str, object]]] = {
    "closed-fnv1a64": make_closed("fnv1a64"),
    "closed-crc32c": make_closed("crc32c"),
    "killed": make_killed,
}


def main() -> int:
    """Make every variant that does not exist yet."""
    for variant, make in VARIANTS.items():
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "log"
            expected = make(path)
            pack(f"v{fmt.VERSION}-{variant}", path, expected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
