"""Backends that break one law each, made of sound ones: what the kit must catch."""

from __future__ import annotations

import errno
from typing import Any

from walrus_core.backend import BACKEND_API, Buffer, Capabilities
from walrus_core.memory import MemoryBackend, MemoryFile, MemoryStore
from walrus_core.testing import SimulatedBackend


class AroundFile:
    """A file that does what another does."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def size_bytes(self) -> int:
        return int(self.inner.size_bytes)

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        return bytes(self.inner.read_at(at_bytes, length_bytes))

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        self.inner.write_at(at_bytes, data)

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        self.inner.reserve(at_bytes, length_bytes)

    def sync(self) -> None:
        self.inner.sync()

    def close(self) -> None:
        self.inner.close()


class Around:
    """A backend that does what another does, with files of a class of its own."""

    api = BACKEND_API
    name = "broken"
    file_class: type[AroundFile] = AroundFile

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def capabilities(self) -> Capabilities:
        found: Capabilities = self.inner.capabilities
        return found

    def create(self, path: str, *, size_bytes: int) -> AroundFile:
        return self.file_class(self.inner.create(path, size_bytes=size_bytes))

    def open(self, path: str) -> AroundFile:
        return self.file_class(self.inner.open(path))

    def sync_many(self, files: Any) -> None:
        for file in files:
            file.sync()


Broken = dict[str, tuple[type[Around], str]]

BROKEN: Broken = {}
"""By what is wrong: the class, and the law that must catch it. They go around a simulated disk."""


def breaks(law_name: str, into: Broken = BROKEN) -> Any:
    """Note a broken backend, or one whose files are of this broken class."""

    def note(cls: Any) -> Any:
        broken = (
            cls if issubclass(cls, Around) else type(f"{cls.__name__}Backend", (Around,), {"file_class": cls})
        )
        into[cls.__name__] = (broken, law_name)
        return cls

    return note


# --- files ----------------------------------------------------------------------------------


@breaks("a_read_beyond_the_end_raises")
class ShortReads(AroundFile):
    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        fitting = max(0, min(length_bytes, self.size_bytes - at_bytes))
        return bytes(self.inner.read_at(min(at_bytes, self.size_bytes), fitting))


@breaks("a_read_beyond_the_end_raises")
class ZerosBeyondTheEnd(AroundFile):
    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        fitting = max(0, min(length_bytes, self.size_bytes - at_bytes))
        return bytes(self.inner.read_at(min(at_bytes, self.size_bytes), fitting)).ljust(length_bytes, b"\0")


@breaks("reads_return_exactly_what_was_asked_for")
class ShortLargeReads(AroundFile):
    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        return bytes(self.inner.read_at(at_bytes, min(length_bytes, 4 << 20)))


@breaks("read_your_write")
class ShortWrites(AroundFile):
    def write_at(self, at_bytes: int, data: Buffer) -> None:
        self.inner.write_at(at_bytes, bytes(data)[:4096])


@breaks("a_write_changes_its_range_alone")
class WritesWholeSectors(AroundFile):
    def write_at(self, at_bytes: int, data: Buffer) -> None:
        end = min(-(-(at_bytes + len(data)) // 512) * 512, self.size_bytes)
        self.inner.write_at(at_bytes, bytes(data).ljust(end - at_bytes, b"\0"))


@breaks("unwritten_bytes_read_as_zero")
class NoZeros(AroundFile):
    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        return bytes(self.inner.read_at(at_bytes, length_bytes)).replace(b"\0", b"\xff")


@breaks("zeros_can_be_written")
class LeavesZerosOut(AroundFile):
    def write_at(self, at_bytes: int, data: Buffer) -> None:
        if any(bytes(data)):
            self.inner.write_at(at_bytes, data)


@breaks("every_kind_of_buffer_is_written")
class KeepsTheBuffer(AroundFile):
    kept: Any = None

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        self._put()
        self.kept = (at_bytes, data)

    def _put(self) -> None:
        if self.kept is not None:
            self.inner.write_at(*self.kept)
            self.kept = None

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        self._put()
        return bytes(self.inner.read_at(at_bytes, length_bytes))


@breaks("a_returned_write_survives_the_process")
class WritesLater(AroundFile):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.waiting: list[tuple[int, bytes]] = []

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        self.waiting.append((at_bytes, bytes(data)))

    def sync(self) -> None:
        while self.waiting:
            self.inner.write_at(*self.waiting.pop(0))
        self.inner.sync()

    def close(self) -> None:
        self.sync()
        self.inner.close()


@breaks("the_size_is_told")
class LiesAboutTheSize(AroundFile):
    @property
    def size_bytes(self) -> int:
        return -(-int(self.inner.size_bytes) // 4096) * 4096


@breaks("reserve_extends_with_zeros")
class DoesNotGrow(AroundFile):
    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        self.inner.reserve(at_bytes, min(length_bytes, max(0, self.size_bytes - at_bytes)))


@breaks("reserve_keeps_what_is_written")
class ReservesByWritingZeros(AroundFile):
    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        self.inner.reserve(at_bytes, length_bytes)
        self.inner.write_at(at_bytes, bytes(length_bytes))


@breaks("close_is_idempotent")
class ClosesTwice(AroundFile):
    is_closed = False

    def close(self) -> None:
        if self.is_closed:
            raise OSError(errno.EBADF, "bad file descriptor")
        self.is_closed = True
        self.inner.close()


def patch(file: AroundFile, at_bytes: int, data: Buffer, chunk_bytes: int) -> tuple[int, bytes, bytes]:
    """Return where the chunks begin that a write touches, what they hold, and what with the write."""
    first = at_bytes // chunk_bytes * chunk_bytes
    end = min(-(-(at_bytes + len(data)) // chunk_bytes) * chunk_bytes, file.size_bytes)
    before = bytes(file.inner.read_at(first, end - first))
    at = at_bytes - first
    return first, before, before[:at] + bytes(data) + before[at + len(data) :]


@breaks("discarded_bytes_read_as_zero")
class DiscardsWholePages(AroundFile):
    def discard(self, at_bytes: int, length_bytes: int) -> None:
        first, end = -(-at_bytes // 4096) * 4096, (at_bytes + length_bytes) // 4096 * 4096
        if end > first:
            self.inner.discard(first, end - first)


@breaks("synced_bytes_are_on_the_medium")
class SyncsNothing(AroundFile):
    def sync(self) -> None:
        pass


@breaks("sync_many_syncs_them_all")
class SyncsTheFirst(Around):
    def sync_many(self, files: Any) -> None:
        for file in files[:1]:
            file.sync()


@breaks("the_buffers_of_an_extent_follow_each_other")
class BuffersBackwards(AroundFile):
    def write_many(self, writes: Any) -> None:
        self.inner.write_many([(at, list(reversed(buffers))) for at, buffers in writes])


@breaks("read_many_answers_in_the_order_asked")
class AnswersSorted(AroundFile):
    def read_many(self, reads: Any) -> Any:
        return self.inner.read_many(sorted(reads))


@breaks("what_one_way_writes_every_way_reads")
class WindowsAreCopies(AroundFile):
    def memory(self, at_bytes: int, length_bytes: int) -> memoryview:
        return memoryview(bytearray(self.inner.read_at(at_bytes, length_bytes)))


# --- directories ----------------------------------------------------------------------------


@breaks("create_refuses_an_existing_file")
class CreatesOver(Around):
    def create(self, path: str, *, size_bytes: int) -> AroundFile:
        if path.rpartition("/")[2] in self.inner.list(path.rpartition("/")[0]):
            self.inner.remove(path)
        return super().create(path, size_bytes=size_bytes)


@breaks("open_refuses_a_missing_file")
class OpensWhatIsMissing(Around):
    def open(self, path: str) -> AroundFile:
        try:
            return super().open(path)
        except FileNotFoundError:
            return super().create(path, size_bytes=0)


@breaks("list_names_the_files_of_the_directory")
class ListsEverything(Around):
    def list(self, directory: str) -> Any:
        store = getattr(self.inner, "disk", None)
        return [path.rpartition("/")[2] for path in store.names] if store else []


@breaks("rename_replaces_what_has_the_name")
class RenamesCarefully(Around):
    def rename(self, old_path: str, new_path: str) -> None:
        if new_path.rpartition("/")[2] in self.inner.list(new_path.rpartition("/")[0]):
            raise FileExistsError(errno.EEXIST, "file exists", new_path)
        self.inner.rename(old_path, new_path)


@breaks("rename_moves_the_file")
class RenamesByCopy(Around):
    def rename(self, old_path: str, new_path: str) -> None:
        old = self.inner.open(old_path)
        new = self.inner.create(new_path, size_bytes=old.size_bytes)
        new.write_at(0, old.read_at(0, old.size_bytes))


@breaks("a_failed_rename_or_remove_changes_nothing")
class RemovesQuietly(Around):
    def remove(self, path: str) -> None:
        try:
            self.inner.remove(path)
        except FileNotFoundError:
            return


@breaks("a_removed_file_is_gone")
class KeepsWhatIsRemoved(Around):
    def remove(self, path: str) -> None:
        self.inner.open(path)


@breaks("it_says_what_it_is")
class OfTheFuture(Around):
    api = BACKEND_API + 1


@breaks("capabilities_are_kept")
class DeclaresTooMuch(Around):
    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(files=False, paging=True)


# --- power ----------------------------------------------------------------------------------


@breaks("synced_bytes_survive_a_power_cut")
class ForgetsASync(AroundFile):
    def sync(self) -> None:
        pass


@breaks("a_rename_is_there_or_not")
class ForgetsToSyncTheDirectory(Around):
    def sync_dir(self, directory: str) -> None:
        pass


@breaks("an_unsynced_write_tears_at_sectors")
class WritesByWayOfZeros(AroundFile):
    """Clears whole pages before it writes: a cut in between leaves zeros that nobody wrote."""

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        first, before, after = patch(self, at_bytes, data, 4096)
        self.inner.write_at(first, bytes(len(before)))
        self.inner.write_at(first, after)


@breaks("an_unsynced_size_is_an_old_or_a_new_one")
class GrowsInPieces(AroundFile):
    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        for end in range(at_bytes + 500, at_bytes + length_bytes, 500):
            self.inner.reserve(at_bytes, end - at_bytes)
        self.inner.reserve(at_bytes, length_bytes)


@breaks("a_durable_write_survives_a_power_cut")
class WritesDurablyNever(Around):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        inner.disk.writes_durably = False


@breaks("a_log_survives_power_cuts")
class SyncsEveryOther(AroundFile):
    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.syncs = 0

    def sync(self) -> None:
        self.syncs += 1
        if self.syncs % 2:
            self.inner.sync()


__all__ = ["BROKEN", "Around", "AroundFile", "MemoryBackend", "MemoryFile", "MemoryStore", "SimulatedBackend"]
