"""Repair: what it changes, that it keeps what was there, and that it may be interrupted anywhere."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random

import pytest
from helpers import LOOSE, NEVER, WHOLE_BLOCK, contents

from walrus_core import CorruptionError, hot, pages
from walrus_core import format as fmt
from walrus_core.errors import StorageError
from walrus_core.findings import DAMAGE, REBUILD
from walrus_core.repair import DONE_NAME, FOLDER_PREFIX, MANIFEST_NAME, carry_out, plan_repair
from walrus_core.testing import FaultyBackend
from walrus_core.verify import verify_directory

NOON_S = 1_800_000_000.0
OPTIONS = {"resets_cursors": True, "rebuilds_cursors": True}


def fill(store) -> dict[str, list[bytes]]:
    """Topics t, whose oldest blocks are given back, and u; closed. Returns: what they hold."""
    wal = store.open(fsync_schedule=NEVER, consistency=LOOSE)
    for number in range(8):
        wal.append_for_topic("t", b"<entry %d>" % number + bytes(WHOLE_BLOCK))
    wal.batch_append_for_topic("u", [b"u%d" % number * 50 for number in range(40)])
    wal.seek("t", 3)
    wal.seek("u", 7, cursor="slow")
    wal.sync()
    found = {topic: contents(wal, topic) for topic in ("t", "u")}
    wal.close()
    return found


def mend(store, backend=None, **options):
    """Plan and carry out; returns the plan and the folder."""
    backend = backend if backend is not None else store.backend()
    plan = plan_repair(backend, store.path, **options)
    return plan, carry_out(backend, plan, now=lambda: NOON_S)


def files_of(store) -> dict[str, bytes]:
    """The files of the log itself."""
    names = [name for name in store.names() if not name.startswith(FOLDER_PREFIX)]
    return {name: store.read_file(name) for name in names}


def folder_files(store, folder: str) -> dict[str, bytes]:
    backend = store.backend()
    found = {}
    for name in backend.list(folder):
        file = backend.open(f"{folder}/{name}")
        found[name] = bytes(file.read_at(0, file.size_bytes))
        file.close()
    backend.close()
    return found


def is_sound(store) -> bool:
    return verify_directory(store.backend(), store.path).is_sound


def page_of(store, owner: bytes) -> int:
    data = store.read_file("cursors.db")
    return data.index(owner + b"\0", 3 * fmt.PAGE_SIZE) // fmt.PAGE_SIZE * fmt.PAGE_SIZE


@pytest.mark.parametrize("place", [0, fmt.PAGE_SIZE])
def test_a_header_of_another_log_is_mended_from_the_copy_that_is_ours(memory_store, make_store, place):
    expected = fill(memory_store)
    other = make_store("memory", "other")
    fill(other)
    before = files_of(memory_store)
    memory_store.patch("cursors.db", place, other.read_file("cursors.db")[: fmt.SECTOR_SIZE])
    (finding,) = verify_directory(memory_store.backend(), memory_store.path).findings
    assert (finding.kind, finding.at_bytes) == ("cursors.db header, one of two copies", place)
    mend(memory_store)
    assert files_of(memory_store) == before
    with memory_store.open() as wal:
        assert {topic: contents(wal, topic) for topic in expected} == expected


def block_at(store, needle: bytes) -> tuple[str, int]:
    name, at = store.find(needle)
    return name, at - (at - fmt.SEGMENT_HEADER_SIZE) % 16384


# --- every kind of damage that it mends -----------------------------------------------------


def break_copies(store) -> None:
    """One of two copies of everything, in all files."""
    name, base = block_at(store, b"<entry 5>")
    store.patch(name, 0, b"\xff" * 100)
    store.patch(name, base + 1536, bytes(1536))
    newest, at = block_at(store, b"<entry 7>")
    store.patch(newest, at, b"\xff" * 600)
    store.patch("cursors.db", fmt.PAGE_SIZE, bytes(512))
    store.patch("cursors.db", page_of(store, b"uslow"), b"\xff" * 512)
    store.patch("cursors.db", page_of(store, b"uslow") + 2560, bytes(1536))


def break_states(store) -> None:
    for owner in (b"uslow", b"tdefault", b"t"):
        store.patch("cursors.db", page_of(store, owner), b"\xff" * 1024)


def break_identity(store) -> None:
    store.patch("cursors.db", page_of(store, b"tdefault") + 1024, bytes(3072))


def break_log_page(store) -> None:
    store.patch("cursors.db", 2 * fmt.PAGE_SIZE, b"\xee" * fmt.PAGE_SIZE)


def break_cursor_headers(store) -> None:
    store.patch("cursors.db", 0, bytes(2 * fmt.PAGE_SIZE))


def break_length(store) -> None:
    store.write_file("cursors.db", store.read_file("cursors.db")[: 3 * fmt.PAGE_SIZE + 100])


def empty_cursors(store) -> None:
    store.write_file("cursors.db", b"")


def bring_foreign(store) -> None:
    """A segment of another log: this one's with another log id, and checksums that fit."""
    from walrus_core.pages import decode_segment_header, encode_segment_header

    name = store.names(".wal")[0]
    data = store.read_file(name)
    header, _ = decode_segment_header(data, name)
    other = encode_segment_header(header._replace(log_id=b"another log's id", sequence=700))
    foreign = other.ljust(fmt.SEGMENT_HEADER_SIZE, b"\0") + data[fmt.SEGMENT_HEADER_SIZE :]
    store.write_file(f"{700:020d}.wal", foreign)


BREAKS = [
    break_copies,
    break_states,
    break_identity,
    break_log_page,
    break_cursor_headers,
    break_length,
    empty_cursors,
    bring_foreign,
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_it_opens_again_with_all_entries_and_the_old_bytes_are_kept(file_store, break_it):
    held = fill(file_store)
    break_it(file_store)
    before = files_of(file_store)
    plan, folder = mend(file_store, **OPTIONS)
    assert plan.left == () and plan.steps
    assert is_sound(file_store)
    copies = folder_files(file_store, folder)
    manifest = json.loads(copies.pop(MANIFEST_NAME))
    copies.pop(DONE_NAME)
    after = files_of(file_store)
    for name in before.keys() - after.keys():
        assert any(step["file"] == name and step["action"] == "remove" for step in manifest["steps"])
    for step in manifest["steps"]:
        old = before[step["file"]]
        if step["action"] == "write":
            old = old[step["at_bytes"] : step["at_bytes"] + step["length_bytes"]]
        assert copies.pop(step["copy"]) == old
        assert (hashlib.sha256(old).hexdigest(), step["why"] != []) == (step["sha256"], True)
    assert copies == {}
    wal = file_store.open()
    assert wal.recovery_report.damages == ()
    assert {topic: contents(wal, topic) for topic in ("t", "u")} == held
    assert (wal.oldest_offset("t"), wal.next_offset("t"), wal.next_offset("u")) == (3, 8, 40)
    assert wal.cursor_offset("u", "slow") <= 7 and wal.cursor_offset("t") <= 3
    assert wal.append_for_topic("t", b"more") == 8
    wal.close()
    assert is_sound(file_store)


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_second_repair_has_nothing_to_do(memory_store, break_it):
    fill(memory_store)
    break_it(memory_store)
    mend(memory_store, **OPTIONS)
    after = files_of(memory_store)
    plan, folder = mend(memory_store, **OPTIONS)
    assert (plan.steps, folder) == ((), None)
    assert files_of(memory_store) == after


def test_a_missing_cursors_db(memory_store):
    held = fill(memory_store)
    del memory_store._memory.files[f"{memory_store.path}/cursors.db"]
    with pytest.raises(CorruptionError):
        memory_store.open()
    plan, _ = mend(memory_store)
    assert plan.steps == () and [finding.remedy for finding in plan.left] == [REBUILD]
    _, folder = mend(memory_store, rebuilds_cursors=True)
    (step,) = json.loads(folder_files(memory_store, folder)[MANIFEST_NAME])["steps"]
    assert (step["action"], step["copy"]) == ("replace", None)
    wal = memory_store.open()
    assert {topic: contents(wal, topic) for topic in ("t", "u")} == held
    assert (wal.oldest_offset("t"), wal.cursor_offset("t")) == (3, 3)


def test_block_sequences_never_come_twice(memory_store):
    fill(memory_store)
    break_log_page(memory_store)
    mend(memory_store, **OPTIONS)
    used = {item.block.sequence for item in _blocks(memory_store)}
    wal = memory_store.open()
    wal.append_for_topic("new", b"x")
    wal.close()
    (fresh,) = {item.block.sequence for item in _blocks(memory_store)} - used
    assert fresh >= 2**32


def _blocks(store):
    from walrus_core.look import open_look
    from walrus_core.verify import judge

    with open_look(store.backend(), store.path, from_medium=False) as look:
        return judge(look).inventory.found


# --- what it does not touch -----------------------------------------------------------------


@pytest.mark.parametrize("break_it", [break_states, break_identity, break_log_page, break_cursor_headers])
def test_cursors_are_made_anew_only_when_told(memory_store, break_it):
    fill(memory_store)
    break_it(memory_store)
    before = files_of(memory_store)
    plan, folder = mend(memory_store)
    assert plan.steps == () and folder is None and plan.left
    assert files_of(memory_store) == before


def test_damaged_frames_stay(memory_store):
    fill(memory_store)
    name, at = memory_store.find(b"u3" * 50)
    memory_store.flip(name, at)
    before = files_of(memory_store)
    plan, _ = mend(memory_store, **OPTIONS)
    assert [(f.topic, f.first_offset, f.end_offset) for f in plan.left] == [("u", 3, 4)]
    assert files_of(memory_store) == before


def test_a_plan_changes_nothing(file_store):
    fill(file_store)
    for break_it in (break_copies, break_log_page, bring_foreign):
        break_it(file_store)
    before = files_of(file_store)
    plan = plan_repair(file_store.backend(), file_store.path, **OPTIONS)
    assert plan.steps and files_of(file_store) == before


def test_a_segment_that_ends_before_its_second_header(memory_store):
    """Its blocks are lost; the second header is written all the same, and an open gives it its length."""
    fill(memory_store)
    name = memory_store.names(".wal")[-1]
    memory_store.write_file(name, memory_store.read_file(name)[:30_000])
    plan, _folder = mend(memory_store)
    assert [(step.action, step.at_bytes) for step in plan.steps] == [("write", fmt.SEGMENT_COPY_AT)]
    kinds = {
        finding.kind for finding in verify_directory(memory_store.backend(), memory_store.path).of(DAMAGE)
    }
    assert "segment header, one of two copies" not in kinds and "segment truncated" in kinds
    memory_store.open().close()


# --- interrupted ------------------------------------------------------------------------------


class Interrupted(BaseException):
    """Stands for whatever may come between two calls of the backend."""


def _stop():
    raise Interrupted


@pytest.mark.parametrize("break_it", BREAKS)
@pytest.mark.parametrize("how", ["interrupt", "kill"])
def test_interrupted_at_every_call_and_run_again_it_ends_the_same(memory_store, break_it, how):
    """An interrupt leaves what was written; a power cut leaves only what syncs have covered."""
    fill(memory_store)
    break_it(memory_store)
    broken = memory_store.killed()
    mend(memory_store, **OPTIONS)
    wanted = files_of(memory_store)
    place = 0
    while True:
        store = broken.killed()
        backend = FaultyBackend(store.backend())
        plan = plan_repair(backend, store.path, **OPTIONS)
        backend.reset()
        rule = backend.interrupt(place, _stop)
        with contextlib.suppress(Interrupted):
            carry_out(backend, plan, now=lambda: NOON_S)
        if not rule.is_over:
            break
        if how == "kill":
            synced = backend.synced_store()
            store._memory.files = synced.files
        _check_evidence(broken, store)
        mend(store, **OPTIONS)
        assert _logical(files_of(store)) == _logical(wanted), place
        place += 1
    assert place > 10


def _logical(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.endswith(".free")}


def _check_evidence(broken, store) -> None:
    """Every byte that is not what it was is in a copy that a manifest names."""
    copies: list[dict] = []
    data_of: dict[str, bytes] = {}
    for path, data in store._memory.files.items():
        folder, _, name = path.rpartition("/")
        if name == MANIFEST_NAME and data.strip(b"\0"):
            facts = json.loads(bytes(data)) if data.rstrip(b"\0").endswith(b"}\n") else {"steps": []}
            copies += [{**step, "folder": folder} for step in facts["steps"]]
        data_of[path] = bytes(data)
    for name in broken.names():
        old = broken.read_file(name)
        new = data_of.get(f"{store.path}/{name}")
        if new == old:
            continue
        kept = bytearray(new if new is not None and len(new) == len(old) else len(old))
        for step in copies:
            if step["file"] == name and step["copy"]:
                saved = data_of[f"{step['folder']}/{step['copy']}"]
                at = step["at_bytes"] if step["action"] == "write" else 0
                kept[at : at + len(saved)] = saved
        assert bytes(kept) == old, name


@pytest.mark.parametrize("operation", ["list", "create", "write", "sync", "sync_dir"])
def test_nothing_is_changed_where_the_copies_cannot_be_made(memory_store, operation):
    fill(memory_store)
    break_copies(memory_store)
    before = files_of(memory_store)
    backend = FaultyBackend(memory_store.backend())
    plan = plan_repair(backend, memory_store.path, **OPTIONS)
    backend.reset()
    backend.fail(operation)  # the first call is one of the copies'
    with pytest.raises(StorageError):
        carry_out(backend, plan, now=lambda: NOON_S)
    assert files_of(memory_store) == before
    mend(memory_store, **OPTIONS)
    assert is_sound(memory_store)


def test_folders_of_one_second_have_names_of_their_own(memory_store):
    fill(memory_store)
    folders = set()
    for _ in range(3):
        memory_store.patch("cursors.db", fmt.PAGE_SIZE, bytes(512))
        folders.add(mend(memory_store)[1])
    assert len(folders) == 3


def test_whatever_is_done_to_cursors_db_it_opens_again(memory_store):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    held = fill(memory_store)
    whole = memory_store.read_file("cursors.db")
    for trial in range(30 if hot.COMPILED else 8):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            length = chance.choice([1, 512, 1024, 4096, 9000])
            at = chance.randrange(0, 8) * 4096 + chance.choice([0, 512, 1024, 2560, chance.randrange(4096)])
            data[at : at + length] = chance.choice([bytes(length), chance.randbytes(length)])
        memory_store.write_file(
            "cursors.db", bytes(data[: chance.choice([len(whole), len(whole), 0, 5000, 20_000])])
        )
        store = memory_store.killed()
        mend(store, **OPTIONS)
        left = verify_directory(store.backend(), store.path).of(DAMAGE)
        # A low water that is zeroed without a trace cannot be told from blocks that are missing in front.
        told = {(finding.kind, finding.topic, finding.first_offset, finding.end_offset) for finding in left}
        assert told <= {("missing block", "t", 0, 3)}, (seed, trial, left)
        wal = store.open(on_corruption="skip")
        assert {topic: contents(wal, topic) for topic in ("t", "u")} == held, (seed, trial)
        wal.close()


@pytest.mark.parametrize("whose", ["another segment", "another log"])
def test_the_copy_of_a_segment_header_that_is_of_this_place_is_the_right_one(file_store, whose):
    """A sound header that was meant for another place stands in front of it: an open reads the copy."""
    held = fill(file_store)
    name = file_store.names(".wal")[0]
    data = file_store.read_file(name)
    header, _ = pages.decode_segment_header(data, name)
    other = header._replace(sequence=700) if whose == "another segment" else header._replace(log_id=bytes(16))
    file_store.patch(name, 0, pages.encode_segment_header(other)[: fmt.SEGMENT_COPY_AT])
    with file_store.open() as wal:
        assert [damage.kind for damage in wal.recovery_report.damages] == [
            "segment header, read from its copy"
        ]
    plan, _folder = mend(file_store, **OPTIONS)
    assert plan.left == () and is_sound(file_store)
    assert file_store.read_file(name)[: fmt.SEGMENT_HEADER_SIZE] == data[: fmt.SEGMENT_HEADER_SIZE]
    with file_store.open() as wal:
        assert wal.recovery_report.damages == ()
        assert {topic: contents(wal, topic) for topic in held} == held


def test_the_copy_of_a_block_header_that_is_of_this_place_is_the_right_one(file_store):
    with file_store.open(fsync_schedule=NEVER) as wal:
        for number in range(3):
            wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
        blocks = [(block.base, block.file.path) for block in wal._engine.topics["t"].blocks]
    name = file_store.names(".wal")[0]
    data = file_store.read_file(name)
    (first, path), (second, other_path) = blocks[:2]
    assert path == other_path
    file_store.patch(name, second, data[first : first + fmt.BLOCK_COPY_AT])
    with file_store.open() as wal:
        kinds = [damage.kind for damage in wal.recovery_report.damages]
        assert kinds == ["block header, read from its copy"]
        assert len(contents(wal, "t")) == 3
    plan, _folder = mend(file_store, **OPTIONS)
    assert plan.left == () and is_sound(file_store)
    assert file_store.read_file(name)[second : second + 512] == data[second : second + 512]
