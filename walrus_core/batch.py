"""Atomic batch append: plan, lease, write, publish.

Everything that can fail for want of space happens before the first byte; the bytes are written
in chunks, one extent a block; then one store makes the whole batch visible. A batch that fails
half-way is never published, and the block it began in takes no more entries.

The transaction log of a batch is its frames: each says how many are still to come, and recovery
keeps a batch only if the last one is there (docs/format.md, "Batch").
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import NamedTuple, Optional

from walrus_core import format as fmt
from walrus_core import hot
from walrus_core.allocator import Allocator, Lease
from walrus_core.backend import Buffer
from walrus_core.block import Block, State
from walrus_core.errors import BatchTooLargeError, InvalidPayloadError
from walrus_core.gate import Gate
from walrus_core.runway import BUSY_BYTES
from walrus_core.topic import Topic

CHUNK_BYTES = 8 * 1024 * 1024


class Part(NamedTuple):
    """Entries ``[start, stop)`` of a batch, which go into one block; ``size_bytes`` of frames."""

    start: int
    stop: int
    size_bytes: int
    payload_bytes: int


NOTHING = Part(0, 0, 0, 0)


def check_batch(payloads: Iterable[object]) -> list[bytes]:
    """Return the payloads as immutable bytes.

    Raises: InvalidPayloadError, BatchTooLargeError: nothing changed.
    """
    if isinstance(payloads, (str, bytes, bytearray, memoryview)):
        kind = type(payloads).__name__
        raise InvalidPayloadError(reason=f"a batch is an iterable of payloads, not one {kind}")
    if type(payloads) in (list, tuple) and len(payloads) <= fmt.BATCH_COUNT_MAX:  # type: ignore[arg-type]
        # A list of our own first: another thread may change the caller's.
        batch: list[bytes] = list(payloads)  # type: ignore[arg-type]
        total, _longest = hot.measure(batch)
        if 0 <= total <= fmt.BATCH_BYTES_MAX and len(batch) <= fmt.BATCH_COUNT_MAX:
            return batch
    taken: list[bytes] = []
    total = 0
    for data in payloads:
        payload = hot.as_payload(data)
        taken.append(payload)
        total += len(payload)
        if len(taken) > fmt.BATCH_COUNT_MAX:
            found = len(payloads) if isinstance(payloads, Sized) else len(taken)
            raise BatchTooLargeError(found=found, limit=fmt.BATCH_COUNT_MAX, unit="entries")
        if total > fmt.BATCH_BYTES_MAX:
            raise BatchTooLargeError(found=total, limit=fmt.BATCH_BYTES_MAX, unit="bytes")
    return taken


def append_batch(topic: Topic, payloads: list[bytes], allocator: Allocator, gate: Gate) -> range:
    """Append all of ``payloads`` (at least one) or none.

    Returns: their offsets. Not durable: see ``Syncer.wait``.

    Raises: EntryTooLargeError, DiskFullError, TooManyFilesError: nothing published. StorageError:
    poisoned, nothing published. Cost: one submission per chunk of CHUNK_BYTES.
    """
    gate.check_call()
    with topic.lock:
        topic.bar()
        gate.check_call()
        topic.write_staged()
        _total, longest = hot.measure(payloads)
        allocator.check_frame(hot.frame_size(longest))
        topic.settle()
        first_offset = topic.next_offset
        here = _part_that_fits(topic, payloads)
        if here.stop == len(payloads):
            offsets = _append_here(topic, payloads, here, gate)
            if offsets is not None:
                topic.admit()
                return offsets
        is_busy = topic.active is not None
        leases = _lease_rest(payloads, here.stop, allocator, BUSY_BYTES if is_busy else 0)
        active = topic.active
        tried: list[Lease] = []
        try:
            if here.stop and active is not None:
                topic.extend_reservation(active, here.size_bytes)
                topic.note_dirty(active)
            blocks = _adopt(topic, leases, first_offset, tried)
        except BaseException:
            _give_back(leases, tried, topic, allocator)
            raise
        try:
            parts = [part for _lease, part in leases]
            _write(topic, payloads, here, active, list(zip(blocks, parts, strict=True)))
        except BaseException:
            topic.withdraw(blocks)
            raise
        topic.admit()
        return range(first_offset, first_offset + len(payloads))


def _append_here(topic: Topic, payloads: list[bytes], here: Part, gate: Gate) -> Optional[range]:
    """Append a batch that fits into the active block in one step, or return None: nothing happened.

    Raises: DiskFullError: nothing happened. StorageError: poisoned, nothing is published.
    """
    active = topic.active
    if active is None or active.tail is None:
        return None
    topic.extend_reservation(active, here.size_bytes)
    topic.note_dirty(active)
    try:
        return active.tail.append_batch(payloads)
    except OSError as error:
        raise gate.write_failed(error, active.file.path, "write") from error


def _part_that_fits(topic: Topic, payloads: list[bytes]) -> Part:
    """Return the entries that still fit into the active block, none where it cannot go on."""
    active = topic.active
    if active is None or active.tail is None or not topic.can_continue(hot.frame_size(len(payloads[0]))):
        return NOTHING
    return _fill(payloads, 0, active.tail.end - active.tail.state[0])


def _fill(payloads: list[bytes], start: int, room_bytes: int) -> Part:
    return Part(start, *hot.fill(payloads, start, len(payloads), room_bytes))


def _lease_rest(
    payloads: list[bytes], start: int, allocator: Allocator, reserve_bytes: int
) -> list[tuple[Lease, Part]]:
    """Lease blocks for the entries from ``start`` on, all of them or none; reserve what they need, and
    at least ``reserve_bytes``."""
    leases: list[tuple[Lease, Part]] = []
    try:
        while start < len(payloads):
            size = hot.frame_size(len(payloads[start]))
            slots = allocator.slots_for(size)
            capacity = slots * allocator.block_size_bytes - fmt.PAGE_SIZE
            wanted = _fill(payloads, start, capacity)
            lease = allocator.lease(size, fmt.PAGE_SIZE + max(wanted.size_bytes, reserve_bytes))
            # An older segment may have smaller or larger slots than new ones get.
            room = min(lease.reserved, lease.slots * lease.segment.header.block_size_bytes) - fmt.PAGE_SIZE
            part = _fill(payloads, start, room)
            leases.append((lease, part))
            start = part.stop
    except BaseException:
        for lease, _part in leases:
            allocator.give_back(lease)
        raise
    return leases


def _give_back(
    leases: list[tuple[Lease, Part]], tried: list[Lease], topic: Topic, allocator: Allocator
) -> None:
    """Undo: blocks that were adopted are given up, leases that no one tried to adopt are free at once.

    One whose adoption failed has been given up by the topic already.
    """
    sequences = {lease.sequence for lease in tried}
    for lease, _part in leases:
        if lease.sequence not in sequences:
            allocator.give_back(lease)
    topic.withdraw([block for block in topic.blocks if block.sequence in sequences])


def _adopt(
    topic: Topic, leases: list[tuple[Lease, Part]], first_offset: int, tried: list[Lease]
) -> list[Block]:
    blocks: list[Block] = []
    for lease, part in leases:
        previous = topic.blocks[-1].sequence if topic.blocks else 0
        tried.append(lease)
        blocks.append(topic.adopt(lease, first_offset + part.start, previous))
    return blocks


def _write(
    topic: Topic,
    payloads: list[bytes],
    here: Part,
    active: Optional[Block],
    later: list[tuple[Block, Part]],
) -> None:
    """Write every part, then publish the batch with one store."""
    parts = ([(active, here)] if here.stop and active is not None else []) + later
    timestamp = _tail(parts[0][0]).now()
    for block, part in parts:
        _tail(block).claim(_tail(block).state[0] + part.size_bytes)
    for file_parts in _by_file(parts):
        _write_file(payloads, file_parts, timestamp)
    finals = [_final(block, part, timestamp) for block, part in parts]
    if not later:
        _tail(parts[0][0]).advance(finals[0])
        return
    for (block, _part), final in zip(parts, finals, strict=True):
        if block is not active and block is not later[-1][0]:
            block.final = final
    _tail(later[-1][0]).advance(finals[-1])
    topic.publish([block for block, _part in later], finals[0] if parts[0][0] is active else None)


def _tail(block: Block) -> hot.Tail:
    assert block.tail is not None, "a block that is written has a tail"
    return block.tail


def _final(block: Block, part: Part, timestamp: int) -> State:
    at, index, payload_bytes, low, high = _tail(block).state
    count = part.stop - part.start
    return State(
        at + part.size_bytes,
        index + count,
        payload_bytes + part.payload_bytes,
        min(low, timestamp),
        max(high, timestamp),
    )


def _by_file(parts: list[tuple[Block, Part]]) -> list[list[tuple[Block, Part]]]:
    """Group consecutive parts that lie in one file, so that each group is one submission."""
    groups: list[list[tuple[Block, Part]]] = []
    for block, part in parts:
        if groups and groups[-1][0][0].file is block.file:
            groups[-1].append((block, part))
        else:
            groups.append([(block, part)])
    return groups


def _write_file(payloads: list[bytes], parts: list[tuple[Block, Part]], timestamp: int) -> None:
    """Encode and write in chunks; several small parts of one file share a submission."""
    writes: list[tuple[int, list[Buffer]]] = []
    pending = 0
    for block, part in parts:
        at, index = _tail(block).state[0], _tail(block).state[1]
        start = part.start
        while start < part.stop:
            stop, size = _chunk(payloads, start, part.stop)
            buffers = hot.encode_batch(block.key, block.algorithm, payloads, start, stop, index, timestamp)
            writes.append((block.base + at, buffers))
            at, index, start = at + size, index + stop - start, stop
            pending += size
            if pending >= CHUNK_BYTES:
                block.file.write_many(writes)
                writes, pending = [], 0
    if writes:
        parts[0][0].file.write_many(writes)


def _chunk(payloads: list[bytes], start: int, end: int) -> tuple[int, int]:
    """Return (stop, frame bytes) of a chunk of about CHUNK_BYTES from ``start``."""
    stop, size, _payload_bytes = hot.fill(payloads, start, end, CHUNK_BYTES)
    if stop == start:
        return start + 1, hot.frame_size(len(payloads[start]))
    return stop, size
