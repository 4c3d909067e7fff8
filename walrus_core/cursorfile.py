"""cursors.db: the topics and cursors of a log, one 4 KiB page each, read whole at open.

Each page has two alternating states with a generation, so a write never touches the state that
holds. Lives here: pages and their durability. Not here: what an offset means.

Invariants: ``pages`` mirrors the file; a page's state changes in memory only after its bytes
are written; a page is handed to one owner until it is freed.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import Optional

from attrs import frozen

from walrus_core import format as fmt
from walrus_core import pages
from walrus_core.backend import Buffer
from walrus_core.errors import CorruptionError, DiskFullError, StorageError
from walrus_core.files import FileCache, LogFile, wrap_directory_call
from walrus_core.hot import fnv1a64, is_zero
from walrus_core.pages import PageIdentity, PageState

PAGES_AT_CREATION = 16
LOAD_BYTES = 1024 * 1024
KEPT = -1  # a number of a page's state that stays as it is
LOG_PAGE = fmt.CURSORS_FIRST_PAGE
"""The page that belongs to the log itself: ``offset`` of its state is the first block sequence that
was never handed out, ``floor`` the page count of the file, ``clean`` whether the log was closed cleanly."""


@frozen
class LostState:
    """A page whose identity is sound and whose states are both damaged."""

    identity: PageIdentity


def cursor_page_key(log_id: bytes, page: int) -> int:
    """Return the state from which the checksums of a page start: bound to its log and its number."""
    return fnv1a64(log_id + page.to_bytes(8, "little"))


class CursorPage:
    """One page in use. ``state`` is what the file holds (written, perhaps not synced yet)."""

    __slots__ = ("damaged", "identity", "is_old", "is_written", "settled_at", "state")

    def __init__(
        self, identity: PageIdentity, state: PageState, damaged: bool = False, is_written: bool = True
    ) -> None:
        """``damaged`` says that both states were unreadable; ``state`` then is a placeholder.

        The identity is whole in the file once ``is_written``, and durable once the file's
        ``synced`` ticket has reached ``settled_at``.
        """
        self.settled_at = 0
        self.is_old = False  # one of two states was unreadable: ``state`` may be one write old
        self.is_written = is_written
        self.identity = identity
        self.state = state
        self.damaged = damaged


class CursorFile:
    """The open cursors.db. Threads: every method may be called from any thread."""

    def __init__(self, files: FileCache, file: LogFile, log_id: bytes, page_count: int) -> None:
        """Use ``create_cursor_file`` or ``open_cursor_file``. Raises: StorageError: it cannot be opened."""
        self._files = files
        self.file = file
        # Kept open until the log is closed: a checkpoint asks for nothing that it can do without.
        file.hold()
        self.log_id = log_id
        self.pages: dict[int, CursorPage] = {}
        self._page_count = page_count
        self._keys: dict[int, int] = {}
        self._owners: dict[tuple[int, bytes, bytes], CursorPage] = {}
        """Pages by kind, topic and cursor."""
        self._free: list[int] = []
        """Numbers of free pages, the lowest last."""
        self._surplus: list[CursorPage] = []
        """Second pages of one owner, left by an interrupt: to be removed."""
        self._lock = threading.RLock()
        self._sync_lock = threading.RLock()
        self.is_clean = False
        """The log was closed cleanly and nothing was written since; see ``set_clean``."""

    def page_key(self, page: int) -> int:
        """State from which the checksums of a page start: bound to this log and this page."""
        key = self._keys.get(page)
        if key is None:
            key = self._keys[page] = cursor_page_key(self.log_id, page)
        return key

    def load(self) -> tuple[list[LostState], list[int], list[int]]:
        """Read every page.

        Returns: (pages that lost both states, numbers of pages of which one state was bad, numbers of
        free pages that are not empty).
        Raises: CorruptionError: a page has states and no readable identity. Whether the log page is there
        ``check_log_page`` tells.
        """
        lost: list[LostState] = []
        single: list[int] = []
        stained: list[int] = []
        if self._page_count > LOG_PAGE:
            page = self.file.read(LOG_PAGE * fmt.PAGE_SIZE, fmt.PAGE_SIZE)
            self._load_page(LOG_PAGE, page, lost, single, stained)
        self._page_count = min(self._page_count, self._believed_count(is_old=bool(single)))
        at, end = (LOG_PAGE + 1) * fmt.PAGE_SIZE, self._page_count * fmt.PAGE_SIZE
        while at < end:
            data = memoryview(self.file.read(at, min(LOAD_BYTES, end - at)))
            for place in range(0, len(data), fmt.PAGE_SIZE):
                number = (at + place) // fmt.PAGE_SIZE
                page = data[place : place + fmt.PAGE_SIZE]
                if is_zero(page):
                    self._free.append(number)
                else:
                    self._load_page(number, page, lost, single, stained)
            at += len(data)
        self._free.reverse()
        return lost, single, stained

    def _believed_count(self, is_old: bool) -> int:
        """Return how many pages there may be: at most twice what the log page names, since the file is
        grown before it is named; ``is_old``: the state that is left of two may be one write old. What
        lies behind was put there by others. All that there can be where the log page is lost."""
        page = self.pages.get(LOG_PAGE)
        if page is None or page.damaged or not LOG_PAGE < page.state.floor <= fmt.CURSORS_PAGES_MAX:
            return fmt.CURSORS_PAGES_MAX
        return page.state.floor * (4 if is_old else 2)

    def _load_page(
        self, number: int, page: Buffer, lost: list[LostState], single: list[int], stained: list[int]
    ) -> None:
        key = self.page_key(number)
        identity = pages.decode_identity(page, key)
        state, damaged, lost_both = pages.decode_states(page, key)
        if identity is None or identity.page != number:
            if state is not None or damaged:
                self._check_unowned(page, number)
                stained.append(number)
            if number != LOG_PAGE:
                self._free.append(number)
            return
        if lost_both:
            lost.append(LostState(identity))
        elif damaged:
            single.append(number)
        found = CursorPage(identity, state or PageState(0, 0), lost_both)
        found.is_old = damaged
        self._take(found)

    def _take(self, page: CursorPage) -> None:
        """Enter a page that was read; of two with one owner the one that is further on counts."""
        identity = page.identity
        key = (identity.kind, identity.topic, identity.cursor)
        other = self._owners.get(key)
        if other is not None:
            if (other.state.offset, other.state.floor) >= (page.state.offset, page.state.floor):
                page, other = other, page
            self._surplus.append(other)
            self.pages.pop(other.identity.page, None)
        self._owners[key] = page
        self.pages[page.identity.page] = page

    def remove_surplus(self) -> None:
        """Free second pages of one owner. Not durable. Raises: StorageError."""
        while self._surplus:
            self.remove(self._surplus[-1])
            self._surplus.pop()

    def _check_unowned(self, page: Buffer, number: int) -> None:
        """A page without identity and with something like a state is free only if that is one sector, and
        all the others are zero: an owner has both states and both copies of the identity."""
        sectors = [page[at : at + fmt.SECTOR_SIZE] for at in range(0, fmt.PAGE_SIZE, fmt.SECTOR_SIZE)]
        if sum(map(any, sectors)) != 1:
            reason = f"page {number} has a state and no readable identity"
            raise self._corrupt(reason, "cursor page identity", number)

    def find(self, kind: int, topic: bytes, cursor: bytes = b"") -> Optional[CursorPage]:
        """Return the page of a topic or cursor, or None."""
        page = self._owners.get((kind, topic, cursor))
        return page if page is not None and page.is_written else None

    def add(self, kind: int, incarnation: int, topic: bytes, cursor: bytes = b"") -> CursorPage:
        """Return the page of an owner; a new one gets its identity written and has no state yet.

        Not durable. Raises: DiskFullError, StorageError: no page was given. Where an earlier call
        was interrupted, its page and its incarnation are the ones that are returned.
        """
        with self._lock:
            page = self._owners.get((kind, topic, cursor))
            if page is None or (page.is_written and page.identity.incarnation != incarnation):
                page = self._take_free(kind, incarnation, topic, cursor)
            if not page.is_written:
                number = page.identity.page
                identity = pages.encode_identity(page.identity, self.page_key(number))
                self.file.write(number * fmt.PAGE_SIZE, bytes(fmt.IDENTITY_AT) + identity)
                page.settled_at = self.file.written
                self.pages[number] = page
                page.is_written = True
            return page

    def _take_free(self, kind: int, incarnation: int, topic: bytes, cursor: bytes) -> CursorPage:
        """Give a free page to an owner, before a byte of it is written.

        A second page of one owner would be read as its older half, and the blocks of the other
        incarnation as dead. An interrupt before the note costs a page until the next open, no more.
        """
        if kind != fmt.PAGE_LOG and not self._free:
            self._grow()
        number = LOG_PAGE if kind == fmt.PAGE_LOG else self._free.pop()
        identity = PageIdentity(kind, number, incarnation, topic, cursor)
        page = CursorPage(identity, PageState(0, 0), is_written=False)
        self._owners[kind, topic, cursor] = page
        return page

    def _grow(self) -> None:
        """Double the file. Its new size is durable before the log page names it, so that a file
        shorter than the log page says is one that was cut by others."""
        page, count = self.pages[LOG_PAGE], self._page_count
        if 2 * count > fmt.CURSORS_PAGES_MAX:
            reason = f"it has {count} pages, the most that there may be are {fmt.CURSORS_PAGES_MAX}"
            raise DiskFullError(path=self.file.path, operation="grow", errno=errno.EFBIG, reason=reason)
        # Up to twice the new size, which the next open believes: see ``_believed_count``.
        self._wipe_behind(count, 4 * count)
        self.file.reserve(count * fmt.PAGE_SIZE, count * fmt.PAGE_SIZE)
        self._files.sync([self.file])
        self._write_next(page, page.state._replace(generation=page.state.generation + 1, floor=2 * count))
        self._page_count = 2 * count
        self._free[:0] = range(2 * count - 1, count - 1, -1)

    def _wipe_behind(self, first: int, end: int) -> None:
        """Zero what others have put behind the file's end, as far as that is about to be taken for ours."""
        at, end_at = first * fmt.PAGE_SIZE, min(end * fmt.PAGE_SIZE, self.file.size_bytes())
        while at < end_at:
            length = min(LOAD_BYTES, end_at - at)
            self.file.write(at, bytes(length))
            at += length

    def check_log_page(self) -> CursorPage:
        """Return the log's own page. Raises: CorruptionError: it is lost, or the file was cut."""
        page = self.pages.get(LOG_PAGE)
        if page is None or page.damaged or page.identity.kind != fmt.PAGE_LOG or not page.state.offset:
            raise self._corrupt("the log's own page cannot be read", "cursors.db log page", LOG_PAGE)
        if not LOG_PAGE < page.state.floor <= fmt.CURSORS_PAGES_MAX:
            reason = f"the log page names {page.state.floor} pages"
            raise self._corrupt(reason, "cursors.db log page", LOG_PAGE)
        if page.state.floor > self._page_count:
            reason = f"the file has {self._page_count} pages, it had {page.state.floor}"
            raise self._corrupt(reason, "cursors.db truncated", self._page_count)
        return page

    def set_clean(self, is_clean: bool) -> None:
        """Write to the log page whether the marks' clean flags can be believed, durably.

        Raises: StorageError, SyncFailedError: as before.
        """
        self.write_state(self.pages[LOG_PAGE], clean_plus_one=int(is_clean))
        self.sync()
        self.is_clean = is_clean

    def _corrupt(self, reason: str, kind: str, number: int) -> CorruptionError:
        return _corruption(self.file.path, reason, kind, number * fmt.PAGE_SIZE)

    def write_state(
        self, page: CursorPage, *, offset: int = KEPT, floor: int = KEPT, clean_plus_one: int = KEPT
    ) -> None:
        """Write a page's next state: the one that holds, with changes. Not durable before ``sync``.

        The identity is durable before the first state is written, so a state without an owner can
        only be damage. The first state is written into both sectors, so from then on one of them
        can be lost without losing the position.

        Raises: StorageError: the old state holds.
        """
        with self._lock:
            if self.file.synced < page.settled_at:
                self._files.sync([self.file])
            old = page.state
            state = PageState(
                old.generation + 1,
                old.offset if offset == KEPT else offset,
                old.floor if floor == KEPT else floor,
                old.clean_plus_one if clean_plus_one == KEPT else clean_plus_one,
            )
            self._write_next(page, state)
            if state.generation == 1:
                self._write_next(page, state._replace(generation=2))
            page.damaged = False

    def _write_next(self, page: CursorPage, state: PageState) -> None:
        try:
            self._write_sector(page, state)
        except BaseException as error:
            self._take_back(page, error)
            raise
        page.state = state

    def _take_back(self, page: CursorPage, error: BaseException) -> None:
        """After a write that ended badly the new state may stand in its sector: put the old one over it.

        Where even that fails nobody knows what a crash would find: the log is poisoned.
        """
        old = page.state._replace(generation=page.state.generation + 1)
        try:
            self._write_sector(page, old)
        except StorageError as again:
            self._files.gate.poison(error if isinstance(error, StorageError) else again)
        else:
            page.state = old

    def _write_sector(self, page: CursorPage, state: PageState) -> None:
        number = page.identity.page
        data = pages.encode_state(state, self.page_key(number)).ljust(fmt.SECTOR_SIZE, b"\0")
        self.file.write_held(number * fmt.PAGE_SIZE + fmt.STATE_AT[state.generation % 2], data)

    def remove(self, page: CursorPage) -> None:
        """Take a page from its owner and wipe it. Not durable. Raises: StorageError."""
        with self._lock:
            number = page.identity.page
            self.file.write(number * fmt.PAGE_SIZE, bytes(fmt.PAGE_SIZE))
            identity = page.identity
            if self.pages.get(number) is page:
                self._owners.pop((identity.kind, identity.topic, identity.cursor), None)
            self.pages.pop(number, None)
            self._free.append(number)

    def sync(self) -> None:
        """Make all that was written before the call durable; one sync serves all who wait.

        Raises: SyncFailedError: poisoned.
        """
        written = self.file.written
        with self._sync_lock:
            if self.file.synced >= written:
                self._files.gate.check_write()
                return
            self._files.sync_one(self.file)


def create_cursor_file(files: FileCache, directory: str, log_id: bytes) -> CursorFile:
    """Create cursors.db, durably. Raises: StorageError: none was made. SyncFailedError: poisoned.

    What a crash leaves in between is recognised by the next open: there is no segment yet.
    """
    path = os.path.join(directory, fmt.CURSORS_NAME)
    gate, backend = files.gate, files.backend
    size = PAGES_AT_CREATION * fmt.PAGE_SIZE
    handle = wrap_directory_call(
        gate, path, "create", lambda: backend.create(path, size_bytes=size), poisons=False
    )
    file = files.add(path, handle)
    file.reserve(0, size)
    cursors = CursorFile(files, file, log_id, PAGES_AT_CREATION)
    cursors._free.extend(range(PAGES_AT_CREATION - 1, LOG_PAGE, -1))
    cursors.write_state(cursors.add(fmt.PAGE_LOG, 0, b""), offset=1, floor=PAGES_AT_CREATION)
    file.write(0, pages.encode_cursors_header(log_id))
    files.sync([file])
    wrap_directory_call(gate, directory, "sync", lambda: backend.sync_dir(directory), poisons=True)
    return cursors


def open_cursor_file(files: FileCache, directory: str) -> CursorFile:
    """Open an existing cursors.db without reading its pages.

    Raises: CorruptionError: it is missing, or both copies of its header are damaged.
    UnsupportedVersionError, StorageError.
    """
    path = os.path.join(directory, fmt.CURSORS_NAME)
    file = files.add(path)
    try:
        # What a killed process wrote may be in the cache only: durable first. After a failed sync
        # the cache may lie: dropped, then believed.
        files.sync([file])
        file.drop_cache()
        size = file.size_bytes()
    except StorageError as error:
        if error.errno == errno.ENOENT:
            raise _corruption(path, "missing although there are segments", "cursors.db missing", 0) from error
        raise
    head = file.read(0, min(size, (LOG_PAGE + 1) * fmt.PAGE_SIZE))
    log_id = pages.decode_cursors_header(head, path)
    if log_id is None:
        raise _corruption(path, "both copies of the header are damaged", "cursors.db header", 0)
    return CursorFile(files, file, log_id, size // fmt.PAGE_SIZE)


def _corruption(path: str, reason: str, kind: str, at_bytes: int) -> CorruptionError:
    return CorruptionError(
        message=f"{path}: {reason}",
        kind=kind,
        path=path,
        at_bytes=at_bytes,
    )
