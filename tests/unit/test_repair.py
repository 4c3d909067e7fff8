"""Repair: what it changes, and that it keeps what was there."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from helpers import NEVER, WHOLE_BLOCK, contents

from walrus_core import CorruptionError, hot, pages
from walrus_core import format as fmt
from walrus_core.findings import DAMAGE, REBUILD
from walrus_core.repair import DONE_NAME, MANIFEST_NAME, plan_repair
from walrus_core.verify import verify_directory

from .repairing import (
    BREAKS,
    OPTIONS,
    break_copies,
    break_cursor_headers,
    break_identity,
    break_log_page,
    break_states,
    bring_foreign,
    files_of,
    fill,
    folder_files,
    is_sound,
    mend,
)


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
