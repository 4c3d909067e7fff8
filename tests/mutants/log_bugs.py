"""Seeded bugs of the rooms that write: when to sync, what is published, what is leased and given back."""

from __future__ import annotations

from .bug import Bug

DURABILITY = "tests/api/test_durability.py"
COVER = "tests/api/test_sync_cover.py"
REUSE = "tests/api/test_reuse.py"
POWER = "tests/crash/test_power.py::test_seed"
CUTS = "tests/crash/test_cuts.py::test_seed"
INTERRUPTS = "tests/sweeps/test_interrupts.py"
ONE_STEP = f"{INTERRUPTS}::test_an_interrupt_at_every_place_where_two_steps_must_be_one"
FAULTS = "tests/sweeps/test_io_faults.py"
TAKEN_BACK = "tests/api/test_taken_back.py"
STAGED = "tests/api/test_staged.py"
GIVING_UP = "tests/api/test_giving_up.py"
PUBLISH = "tests/api/test_failed_publish.py"

BUGS = [
    # --- when an entry is durable ---------------------------------------------------------------
    Bug(
        "marked before the sync",
        "walrus_core/syncer.py",
        "        if not self._durable_writes:\n"
        "            self._files.sync_one(block.file)\n"
        "            if self._synced is not None:\n"
        "                self._synced(1, time.monotonic() - started_s)\n"
        "        topic.burst_count = end_offset - topic.durable_offset\n"
        "        topic.durable_offset = end_offset\n"
        "        if state is not None:\n"
        "            self._mark(topic, [(block, state)], True)\n"
        "            self._marked_s = started_s\n",
        "        topic.durable_offset = end_offset\n"
        "        if state is not None:\n"
        "            self._mark(topic, [(block, state)], True)\n"
        "            self._marked_s = started_s\n"
        "        if not self._durable_writes:\n"
        "            self._files.sync_one(block.file)\n"
        "            self._synced(1, time.monotonic() - started_s)\n",
        "a mark vouches for frames that a failing sync or a power cut takes away",
        (POWER,),
    ),
    Bug(
        "durable up to the end after the sync",
        "walrus_core/syncer.py",
        "topic.durable_offset = end_offset\n        if state",
        "topic.durable_offset = topic.next_offset\n        if state",
        "an entry written while the sync was under way counts as durable",
        (f"{COVER}::test_a_sync_covers_what_was_there_when_it_began",),
        is_quick=True,
    ),
    Bug(
        "uncovered caller let go",
        "walrus_core/syncer.py",
        "                raise self._uncovered(offset)",
        "                pass",
        "an append returns although the sync proved nothing for its entry",
        (f"{COVER}::test_a_sync_that_does_not_cover_its_caller_acknowledges_nothing",),
    ),
    Bug(
        "mark beyond the durable offset",
        "walrus_core/syncer.py",
        "if block.is_sealed or block.first_offset + state.entries > topic.durable_offset:",
        "if block.is_sealed:",
        "a mark vouches for entries that came while its sync was under way",
        (f"{COVER}::test_a_mark_vouches_for_nothing_that_came_while_its_sync_began",),
    ),
    Bug(
        "clean flag never taken back",
        "walrus_core/syncer.py",
        "                    self._cursors.set_clean(False)",
        "                    self._cursors.is_clean = False",
        "the next open believes clean marks that are from before a crash",
        (POWER,),
    ),
    Bug(
        "seal without a sync",
        "walrus_core/topic.py",
        "            before.final = State(*tail.state) if final is None else final\n",
        "            before.final = State(*tail.state) if final is None else final\n"
        "            before.write_mark(before.final, fmt.MARK_SEALED)\n",
        "a seal vouches for bytes that may never reach the disk",
        (POWER,),
    ),
    Bug(
        "dirty after the write",
        "walrus_core/topic.py",
        "                if not self.is_dirty:\n                    self.note_dirty(active)\n",
        "",
        "nobody syncs what was appended behind a completed sync",
        (f"{DURABILITY}::test_sync_each_is_durable_on_return",),
    ),
    Bug(
        "batch acknowledged before its sync",
        "walrus_core/walrus.py",
        "                engine.syncer.wait(found, offsets.stop)",
        "                pass",
        "a batch that returned is lost by a power cut",
        (f"{DURABILITY}::test_sync_each_is_durable_on_return",),
        is_quick=True,
    ),
    Bug(
        "entry acknowledged before its sync",
        "walrus_core/walrus.py",
        "            offset = found.append(data)\n            if self._waits:",
        "            offset = found.append(data)\n            if False:",
        "an append that returned is lost by a power cut",
        (f"{DURABILITY}::test_sync_each_is_durable_on_return",),
        pure=True,
    ),
    Bug(
        "visible before durable",
        "walrus_core/engine.py",
        "if self._waits or self.gate.failure is not None:",
        "if self.gate.failure is not None:",
        "with sync-each readers see an entry that a power cut takes back",
        ("tests/api/test_in_flight.py::test_with_sync_each_nothing_is_visible_before_it_is_durable",),
    ),
    Bug(
        "clean before its marks",
        "walrus_core/engine.py",
        "        self.files.sync(self.files.dirty_files())\n",
        "",
        "the log says it was closed cleanly, and the marks it vouches for are lost",
        (POWER,),
    ),
    Bug(
        "followers let go unsynced",
        "walrus_core/group.py",
        "        while topic.durable_offset < offset:\n            if not self._lead",
        "        if topic.durable_offset < offset:\n            if not self._lead",
        "who waits for somebody else's sync returns before one covers it",
        ("tests/unit/test_group.py::test_a_failed_sync_leaves_nobody_waiting",),
        pure=True,
    ),
    Bug(
        "lock taken in two steps",
        "walrus_core/gate.py",
        "    held.extend(itertools.compress((lock,), map(lock.acquire, (False,))))\n",
        "    if lock.acquire(False):\n        held.append(lock)\n",
        "an interrupt in between leaves the lock held for ever",
        (f"{ONE_STEP}[Sweep-take_lock]",),
    ),
    # --- a failure that goes unnoticed --------------------------------------------------------------
    Bug(
        "failed sync does not poison",
        "walrus_core/gate.py",
        "        self.poison(failure)\n        return failure\n\n    def run_sync",
        "        return failure\n\n    def run_sync",
        "the log goes on after a failed sync, and the next sync lies",
        ("tests/defects/test_w36_w41.py::test_w36_a_failed_sync_is_raised_and_poisons_the_log",),
    ),
    Bug(
        "failed write does not poison",
        "walrus_core/gate.py",
        "        if not is_harmless(error):\n            self.poison(failure)\n",
        "",
        "the log goes on behind bytes of which nobody knows what they are",
        ("tests/api/test_full_disk.py::test_other_errors_of_a_write_or_sync_poison",),
    ),
    # --- one entry, one batch -----------------------------------------------------------------------
    Bug(
        "state before the bytes",
        "walrus_core/_pure/tail.py",
        '        self._write(at, b"".join((header, payload, _ZEROS[: -len(payload) % FRAME_ALIGN])))\n'
        "        self.state = (\n"
        "            at + size,\n"
        "            index + 1,\n"
        "            payload_bytes + len(payload),\n"
        "            min(low, timestamp),\n"
        "            max(high, timestamp),\n"
        "        )\n",
        "        self.state = (\n"
        "            at + size,\n"
        "            index + 1,\n"
        "            payload_bytes + len(payload),\n"
        "            min(low, timestamp),\n"
        "            max(high, timestamp),\n"
        "        )\n"
        '        self._write(at, b"".join((header, payload, _ZEROS[: -len(payload) % FRAME_ALIGN])))\n',
        "an entry is there before its bytes, and stays when they cannot be written",
        ("tests/defects/test_w01_w05.py::test_w05_a_failed_write_is_an_error_and_the_entry_is_not_there",),
        pure=True,
    ),
    Bug(
        "state in two steps",
        "walrus_core/_pure/tail.py",
        "        self.state = (\n            at + size,\n            index + 1,\n",
        "        self.state = (at + size, index, payload_bytes, low, high)\n"
        "        self.state = (\n            at + size,\n            index + 1,\n",
        "an interrupt, or a reader in between, finds a frame that belongs to no entry",
        (f"{INTERRUPTS}::test_an_interrupt_at_any_place",),
        pure=True,
    ),
    Bug(
        "torn tail goes on",
        "walrus_core/_pure/tail.py",
        "        return self.claimed != self.state[0]",
        "        return False",
        "appends go on behind what an interrupted write may have left",
        ("tests/unit/test_hot_tail_faults.py::test_a_failing_call_leaves_the_tail_torn",),
        pure=True,
    ),
    Bug(
        "batch published before its last byte",
        "walrus_core/batch.py",
        "    for file_parts in _by_file(parts):\n"
        "        _write_file(payloads, file_parts, timestamp)\n"
        "    finals = [_final(block, part, timestamp) for block, part in parts]\n"
        "    if not later:\n"
        "        _tail(parts[0][0]).advance(finals[0])\n"
        "        return\n"
        "    for (block, _part), final in zip(parts, finals, strict=True):\n"
        "        if block is not active and block is not later[-1][0]:\n"
        "            block.final = final\n"
        "    _tail(later[-1][0]).advance(finals[-1])\n"
        "    topic.publish([block for block, _part in later], finals[0] if parts[0][0] is active else None)\n",
        "    finals = [_final(block, part, timestamp) for block, part in parts]\n"
        "    if later:\n"
        "        for (block, _part), final in zip(parts, finals, strict=True):\n"
        "            if block is not active and block is not later[-1][0]:\n"
        "                block.final = final\n"
        "        topic.publish([block for block, _part in later], finals[0] if parts[0][0] is active else None)\n"
        "    for file_parts in _by_file(parts):\n"
        "        _write_file(payloads, file_parts, timestamp)\n"
        "    _tail(parts[-1][0]).advance(finals[-1])\n",
        "readers, and a crash, find the first part of a batch",
        ("tests/defects/test_w01_w05.py::test_w04_no_reader_sees_a_part_of_a_batch",),
    ),
    Bug(
        "leases of a failed batch kept",
        "walrus_core/batch.py",
        "        for lease, _part in leases:\n            allocator.give_back(lease)\n        raise",
        "        raise",
        "a batch that does not fit eats the free slots",
        ("tests/defects/test_w11_w15.py::test_w15_a_failed_batch_over_blocks_is_undone",),
    ),
    # --- blocks: leased, given back -----------------------------------------------------------------
    Bug(
        "failed batch not withdrawn",
        "walrus_core/batch.py",
        "        except BaseException:\n            topic.withdraw(blocks)\n            raise\n",
        "        except BaseException:\n            raise\n",
        "blocks of a batch that failed stay taken until somebody uses the topic",
        (f"{TAKEN_BACK}::test_the_blocks_of_a_failed_batch_are_free_after_the_next_sync",),
        is_quick=True,
    ),
    Bug(
        "end of a block taken back beside its seal",
        "walrus_core/topic.py",
        "            active.final = State(*tail.state)\n",
        "            active.final = None\n",
        "a batch that fails while the block before it is sealed leaves a sealed block without an end",
        (f"{PUBLISH}::test_a_batch_that_fails_while_its_block_is_sealed_takes_no_end_away",),
        is_quick=True,
    ),
    Bug(
        "sequences reserved in memory only",
        "walrus_core/allocator.py",
        "            self._cursors.sync()\n            self._reserved_blocks = until",
        "            self._reserved_blocks = until",
        "a new block gets the sequence of a lost one, whose stale frames then pass every checksum",
        (f"{REUSE}::test_a_sequence_is_reserved_durably_before_a_block_has_it",),
        is_quick=True,
    ),
    Bug(
        "sequences begin again at an open",
        "walrus_core/allocator.py",
        "max(reserved, highest_block + 1)",
        "highest_block + 1",
        "sequences of blocks that were given back are used again",
        (f"{REUSE}::test_a_sequence_that_a_crash_has_lost_is_not_used_again",),
    ),
    Bug(
        "marks not wiped first",
        "walrus_core/allocator.py",
        "            for segment, slot, slots in batch:\n"
        "                segment.wipe_marks(slot, slots)\n"
        "            self._files.sync(segment.file for segment, _slot, _slots in batch)\n",
        "",
        "a crash in the middle of a wipe looks like damage",
        (f"{DURABILITY}::test_a_block_of_several_slots_is_wiped_without_a_trace_of_damage",),
    ),
    Bug(
        "empty block given back unsealed",
        "walrus_core/reclaim.py",
        "                if not _is_done(topic, topic.blocks[0]):\n                    return\n",
        "",
        "the seal of a block that an interrupted append left empty lands in a slot that was given back",
        (
            f"{REUSE}::test_an_empty_block_of_an_interrupted_append_waits_for_its_seal",
            f"{INTERRUPTS}::test_what_an_interrupt_left_is_not_given_back_before_its_seal[append_leases-never]",
        ),
    ),
    Bug(
        "last detached block forgotten",
        "walrus_core/reclaim.py",
        "            block = self._detached[0]\n"
        "            self._allocator.give_up(block.segment, block.header.slot, block.header.slots)\n"
        "            del self._detached[0]\n",
        "            block = self._detached[-1]\n"
        "            self._allocator.give_up(block.segment, block.header.slot, block.header.slots)\n"
        "            self._detached.pop()\n",
        "a block that a reader passes on meanwhile is taken for the one just given up, and its space is lost",
        (f"{REUSE}::test_a_block_that_a_reader_passes_on_meanwhile_is_given_up_too",),
    ),
    Bug(
        "low water not durable before the wipe",
        "walrus_core/reclaim.py",
        "            if found:\n                self._cursors.sync()\n",
        "",
        "blocks are gone, and after a power cut the topic begins in front of them",
        (f"{DURABILITY}::test_a_cursor_never_points_past_the_log_at_any_crash_point",),
    ),
    Bug(
        "reclaim past an unsaved cursor",
        "walrus_core/reclaim.py",
        "(0 if cursor.lost else cursor.saved_offset for",
        "(0 if cursor.lost else cursor.offset for",
        "entries are given back that a cursor would read again after a crash",
        (f"{REUSE}::test_nothing_is_given_back_that_a_cursor_may_read_again",),
        is_quick=True,
    ),
    Bug(
        "detached in two steps",
        "walrus_core/reclaim.py",
        "                self._detached.extend(map(topic.blocks.pop, (0,)))\n",
        "                block = topic.blocks.pop(0)\n                self._detached.append(block)\n",
        "an interrupt in between loses a block for as long as the log is open",
        (f"{ONE_STEP}[SlotSweep-_detach]",),
    ),
    # --- what is given back ------------------------------------------------------------------------
    Bug(
        "file noted after it is open",
        "walrus_core/files.py",
        "                self._make_room(file)\n            file.holds += 1\n",
        "                self._open.pop(file)\n                self._make_room(file)\n"
        "                self._open[file] = None\n            file.holds += 1\n",
        "a close after an interrupt does not know of the file and leaves it open",
        (f"{GIVING_UP}::test_a_file_that_was_just_opened_is_closed_after_an_interrupt",),
        is_quick=True,
    ),
    Bug(
        "interrupted step of a close left half done",
        "walrus_core/lifetime.py",
        "        return isinstance(error, Exception)\n",
        "        return True\n",
        "files stay open behind a close that was interrupted",
        (f"{GIVING_UP}::test_a_close_interrupted_between_two_files_closes_all",),
        is_quick=True,
    ),
]
