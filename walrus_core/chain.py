"""From the blocks that lie in the segments to the chain of one topic, and to its true end.

Lives here: which blocks belong to the topic, how far their frames go, where a torn tail is cut.
Reads only; ``recovery.py`` acts on the answer. docs/format.md, "Recovery", has the rules.
"""

from __future__ import annotations

from typing import Optional

from attrs import define, field

from walrus_core import format as fmt
from walrus_core import hot
from walrus_core.block import EMPTY, Block, State
from walrus_core.pages import Mark
from walrus_core.types import Damage

SCAN_BYTES = 1024 * 1024
_NO_LIMIT = 2**32
TORN_TAIL = "torn tail"


@define(eq=False)
class Found:
    """A sound header page, with the newest mark of its block."""

    block: Block
    mark: Optional[Mark]
    clean_flag_counts: bool = False
    """No newer mark can have been lost, and the log was closed cleanly."""

    @property
    def marked_state(self) -> State:
        """What the mark vouches for."""
        mark = self.mark
        if mark is None:
            return EMPTY
        return State(mark.durable_bytes, mark.entry_count, mark.payload_bytes, mark.low_ns, mark.high_ns)

    @property
    def marked_end(self) -> int:
        """Offset behind the last entry that the mark vouches for."""
        return self.block.first_offset + self.marked_state.entries

    @property
    def is_settled(self) -> bool:
        """True where nothing behind the mark needs a look: sealed, or closed cleanly."""
        mark = self.mark
        return mark is not None and (mark.is_sealed or (mark.is_clean and self.clean_flag_counts))


@define
class Chain:
    """What is known of one topic after the scan."""

    kept: list[Found] = field(factory=list)
    dropped: list[Found] = field(factory=list)
    """Blocks that are cut off or were never published: to be given back."""
    states: dict[int, State] = field(factory=dict)
    """By block sequence: how far each kept block goes."""
    damages: list[Damage] = field(factory=list)
    cut_at: Optional[tuple[Found, State, str]] = None
    """Where a torn tail was cut: the last kept block, its state, the reason."""
    appendable: bool = False
    scanned_bytes: int = 0

    @property
    def end_offset(self) -> int:
        """Offset behind the last kept entry; 0 for a chain without blocks."""
        if not self.kept:
            return 0
        last = self.kept[-1].block
        return last.first_offset + self.states[last.sequence].entries


def choose(found: list[Found], low_water: int) -> tuple[list[Found], list[Found]]:
    """Split the blocks of one topic into its chain, oldest first, and the rest.

    A mark is written only for a published block, so the marked blocks and all that they follow
    are the chain; behind the last of them the youngest of several children is the one that
    counts, because a writer leaves a block for good before it begins another.
    """
    by_sequence = {item.block.sequence: item for item in found}
    chain: list[Found] = []
    marked = sorted(item.block.sequence for item in found if item.mark is not None)
    while marked:
        item: Optional[Found] = by_sequence[marked.pop()]
        run: list[Found] = []
        while item is not None:
            run.append(item)
            item = by_sequence.get(item.block.header.previous_sequence)
        chain[:0] = reversed(run)
        oldest = chain[0].block.sequence
        marked = [sequence for sequence in marked if sequence < oldest]
    if not chain:
        roots = [item for item in found if _is_root(item, by_sequence, low_water)]
        chain = [max(roots, key=lambda item: item.block.sequence)] if roots else []
    while chain:
        last = chain[-1]
        children = [
            item
            for item in found
            if item.mark is None
            and item.block.header.previous_sequence == last.block.sequence
            and item.block.sequence > last.block.sequence
            and item.block.first_offset >= last.marked_end
        ]
        if not children:
            break
        chain.append(max(children, key=lambda item: item.block.sequence))
    in_chain = {item.block.sequence for item in chain}
    return chain, [item for item in found if item.block.sequence not in in_chain]


def _is_root(item: Found, by_sequence: dict[int, Found], low_water: int) -> bool:
    previous = item.block.header.previous_sequence
    return previous not in by_sequence and (previous == 0 or item.block.first_offset <= low_water)


def resolve(topic: str, found: list[Found], low_water: int) -> Chain:
    """Find the chain of a topic, scan what its marks do not vouch for, and cut the torn tail.

    Raises: StorageError: a read failed.
    """
    # The low water is the first offset of the oldest block that was kept: what begins below it was
    # given back before the crash, though its header page may have come back with the power.
    live = [item for item in found if item.block.first_offset >= low_water]
    chosen, dropped = choose(live, low_water)
    dropped.extend(item for item in found if item.block.first_offset < low_water)
    chain = Chain(dropped=dropped)
    while len(chosen) > 1 and chosen[1].block.first_offset <= low_water:
        # An empty block at the low water: given back as well.
        chain.dropped.append(chosen.pop(0))
    chain.kept = chosen
    _report_gaps(topic, chain, low_water)
    remaining = 0
    starts: list[int] = []
    for place, item in enumerate(chosen):
        if remaining == 0 and _continues_batch(chosen, place):
            remaining = _batch_begun_before(item.block)
        starts.append(remaining)
        is_last = place + 1 == len(chosen)
        limit = _NO_LIMIT if is_last else chosen[place + 1].block.first_offset - item.block.first_offset
        state, remaining, reached = _extent(chain, item, remaining, limit, is_last)
        chain.states[item.block.sequence] = state
        if is_last or reached:
            continue
        if any(later.mark is not None for later in chosen[place + 1 :]):
            chain.damages.append(_lost(topic, item.block, state, limit))
            remaining = 0
            continue
        _cut(chain, place, starts, remaining, "bytes before later blocks are missing")
        return chain
    if remaining:
        _cut(chain, len(chosen) - 1, starts, remaining, "incomplete batch")
    elif chosen:
        _settle_tail(chain)
    return chain


def _continues_batch(chosen: list[Found], place: int) -> bool:
    """True where the block before this one was not walked, so its batch may go on in this one.

    A seal vouches that the whole batch was durable, also its part in the blocks behind the seal.
    """
    item = chosen[place]
    if item.mark is not None or item.block.header.previous_sequence == 0:
        return False
    return place == 0 or chosen[place - 1].marked_end >= item.block.first_offset


def _batch_begun_before(block: Block) -> int:
    """Return how many entries of a batch from an earlier block still come in this one and later."""
    if scan(block, EMPTY, 0, 1)[0].entries:
        return 0
    header = hot.peek_header(block.read(fmt.PAGE_SIZE, fmt.FRAME_HEADER_SIZE), 0, block.key)
    return 0 if header is None or header[1] != 0 else header[2] + 1


def _extent(chain: Chain, item: Found, remaining: int, limit: int, is_last: bool) -> tuple[State, int, bool]:
    """Return (state, entries of a begun batch still missing, whether ``limit`` was reached)."""
    marked = item.marked_state
    if marked.entries >= limit and not is_last:
        return marked, 0, True
    if is_last and item.is_settled:
        return marked, 0, True
    begun = remaining if item.mark is None else 0
    state, left = scan(item.block, marked, begun, limit)
    chain.scanned_bytes += state.at - marked.at
    return state, left, state.entries >= limit


def scan(block: Block, start: State, remaining: int, limit_index: int) -> tuple[State, int]:
    """Verify frames behind ``start`` until the first that is not sound, or ``limit_index``.

    Returns: (the state behind the last sound frame, entries of its batch still to come).
    """
    state = start
    length = SCAN_BYTES
    while state.at + fmt.FRAME_HEADER_SIZE <= block.length_bytes:
        view = block.read(state.at, min(length, block.length_bytes - state.at))
        at, index, remaining, payload_bytes, low, high, status, need = hot.walk(
            view, 0, block.key, block.algorithm, state.entries, remaining, limit_index
        )
        state = State(
            state.at + at,
            index,
            state.payload_bytes + payload_bytes,
            min(state.low_ns, low),
            max(state.high_ns, high),
        )
        if status != hot.SHORT or state.at + need > block.length_bytes:
            break
        length = max(need, SCAN_BYTES)
    return state, remaining


def _report_gaps(topic: str, chain: Chain, low_water: int) -> None:
    """Report blocks that are missing in front of marked ones: their entries were durable."""
    previous: Optional[Found] = None
    for item in chain.kept:
        block = item.block
        expected = block.header.previous_sequence
        missing = expected not in (0, previous.block.sequence if previous is not None else 0)
        if missing and block.first_offset > low_water:
            first = low_water if previous is None else previous.marked_end
            chain.damages.append(
                Damage(
                    kind="missing block",
                    path=block.file.path,
                    at_bytes=block.base,
                    topic=topic,
                    first_offset=min(first, block.first_offset),
                    end_offset=block.first_offset,
                )
            )
        previous = item


def _lost(topic: str, block: Block, state: State, limit: int) -> Damage:
    return Damage(
        kind="frame",
        path=block.file.path,
        at_bytes=block.base + state.at,
        topic=topic,
        first_offset=block.first_offset + state.entries,
        end_offset=block.first_offset + limit,
    )


def _cut(chain: Chain, place: int, starts: list[int], remaining: int, reason: str) -> None:
    """Keep everything up to the last complete batch at or before block ``place``."""
    while True:
        item = chain.kept[place]
        state = chain.states[item.block.sequence]
        begun = starts[place] if item.mark is None else 0
        boundary = state if remaining == 0 else _last_boundary(item, begun, state)
        if boundary is not None or place == 0:
            break
        remaining = starts[place]
        place -= 1
    for later in chain.kept[place + 1 :]:
        chain.states.pop(later.block.sequence, None)
        chain.dropped.append(later)
    del chain.kept[place + 1 :]
    final = boundary if boundary is not None else EMPTY
    chain.states[item.block.sequence] = final
    chain.cut_at = (item, final, reason)


def _last_boundary(item: Found, begun: int, end: State) -> Optional[State]:
    """Return the state behind the last complete batch of a block, None where none ends in it."""
    block = item.block
    start = item.marked_state
    at, index = start.at, start.entries
    boundary_index = index if begun == 0 else -1
    while at < end.at:
        header = hot.peek_header(block.read(at, fmt.FRAME_HEADER_SIZE), 0, block.key)
        assert header is not None, "the scan has verified this frame"
        at += hot.frame_size(header[0])
        index += 1
        if header[2] == 0:
            boundary_index = index
    if boundary_index < 0:
        return None
    return start if boundary_index == start.entries else scan(block, start, begun, boundary_index)[0]


def _settle_tail(chain: Chain) -> None:
    """Decide whether the last block goes on behind its frames."""
    last = chain.kept[-1]
    state = chain.states[last.block.sequence]
    if last.mark is not None and last.mark.is_sealed:
        return
    if last.is_settled or rest_is_zero(last.block, state.at):
        chain.appendable = True
        return
    chain.cut_at = (last, state, TORN_TAIL)


def rest_is_zero(block: Block, at: int) -> bool:
    """True where nothing but zeros stands from ``at`` to the end of the block."""
    while at < block.length_bytes:
        length = min(SCAN_BYTES, block.length_bytes - at)
        if not hot.is_zero(block.read(at, length)):
            return False
        at += length
    return True
