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
from walrus_core.scan import rest_is_zero, scan
from walrus_core.types import Damage

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

    topic: str
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


def choose(found: list[Found], low_water: int, is_old: bool = False) -> tuple[list[Found], list[Found]]:
    """Split the blocks of one topic into its chain, oldest first, and the rest.

    A mark is written only for a published block, so the marked blocks and all that they follow
    are the chain; behind the last of them the youngest of several children is the one that
    counts, because a writer leaves a block for good before it begins another.

    ``is_old``: the low water may be older than the last one that was written, so a block whose parent
    was given back may begin above it.

    Cost: linear but for sorting, whatever the header pages say.
    """
    by_sequence: dict[int, Found] = {}
    children: dict[int, list[Found]] = {}
    for item in found:
        by_sequence.setdefault(item.block.sequence, item)
        if item.mark is None:
            children.setdefault(item.block.header.previous_sequence, []).append(item)
    runs: list[list[Found]] = []
    for sequence in sorted(
        (each for each, item in by_sequence.items() if item.mark is not None), reverse=True
    ):
        if runs and sequence >= runs[-1][-1].block.sequence:
            continue
        runs.append(_followed(by_sequence[sequence], by_sequence))
    chain = [item for run in reversed(runs) for item in reversed(run)]
    if not chain:
        limit = _NO_LIMIT if is_old else low_water
        roots = [item for item in found if _is_root(item, by_sequence, limit)]
        chain = [max(roots, key=lambda item: item.block.sequence)] if roots else []
    while chain:
        last = chain[-1]
        followers = [
            item
            for item in children.get(last.block.sequence, ())
            if item.block.sequence > last.block.sequence and item.block.first_offset >= last.marked_end
        ]
        if not followers:
            break
        chain.append(max(followers, key=lambda item: item.block.sequence))
    in_chain = {id(item) for item in chain}
    return chain, [item for item in found if id(item) not in in_chain]


def _followed(item: Found, by_sequence: dict[int, Found]) -> list[Found]:
    """Return the block and all that it follows, the youngest first; sequences fall, so it has an end."""
    run = [item]
    while (before := by_sequence.get(run[-1].block.header.previous_sequence)) is not None:
        run.append(before)
    return run


def _drop_misfits(chain: Chain) -> None:
    """Drop blocks that begin before the end of the one before them: no log writes such, but a file may hold
    them, and offsets must not go back. What is sound in them is copied aside like all that is cut off."""
    kept: list[Found] = []
    for item in chain.kept:
        if kept and item.block.first_offset < kept[-1].marked_end:
            block = item.block
            chain.dropped.append(item)
            chain.damages.append(
                Damage(
                    kind="block out of order", path=block.file.path, at_bytes=block.base, topic=chain.topic
                )
            )
        else:
            kept.append(item)
    chain.kept = kept


def _is_root(item: Found, by_sequence: dict[int, Found], low_water: int) -> bool:
    previous = item.block.header.previous_sequence
    return previous not in by_sequence and (previous == 0 or item.block.first_offset <= low_water)


def resolve(topic: str, found: list[Found], low_water: int, is_old: bool = False) -> Chain:
    """Find the chain of a topic, scan what its marks do not vouch for, and cut the torn tail.

    ``is_old``: as for ``choose``.
    Raises: StorageError: a read failed.
    """
    # The low water is the first offset of the oldest block that was kept: what begins below it was
    # given back before the crash, though its header page may have come back with the power.
    live = [item for item in found if item.block.first_offset >= low_water]
    chosen, dropped = choose(live, low_water, is_old)
    dropped.extend(item for item in found if item.block.first_offset < low_water)
    empty = 0
    while empty + 1 < len(chosen) and chosen[empty + 1].block.first_offset <= low_water:
        # An empty block at the low water: given back as well.
        empty += 1
    chain = Chain(topic, kept=chosen[empty:], dropped=[*dropped, *chosen[:empty]])
    _drop_misfits(chain)
    chosen = chain.kept
    _report_gaps(topic, chain, low_water)
    last_marked = max((place for place, item in enumerate(chosen) if item.mark is not None), default=-1)
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
        if last_marked > place:
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
