"""The contract between the core and a backend: all that the author of a backend must read.

A backend does byte I/O on a flat directory of files; it knows nothing of topics or frames.
Every durable byte of a log passes through these two protocols (only the LOCK file is the
core's own). Implementations need no base class. Backends raise plain ``OSError``; the core
turns it into its own types. Paths are ``str``. Positions and lengths are bytes.

Version: a backend states ``api = 1``: the number, as ``BACKEND_API`` was when it was written, and
not the name, which would follow the installed core. The core accepts the range
``BACKEND_API_OLDEST .. BACKEND_API``; the number rises with any change of meaning.

docs/writing-a-backend.md goes from an empty folder to a published plugin. Each sentence here is a
law of ``walrus_core.testing.contract``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Union, runtime_checkable

from attrs import frozen

BACKEND_API = 1
BACKEND_API_OLDEST = 1

Buffer = Union[bytes, bytearray, memoryview]
"""A memoryview that crosses this seam is contiguous and of single bytes, so that ``len`` is its length."""


@frozen(kw_only=True)
class Capabilities:
    """What a backend can do beyond the required methods; each flag stands for named methods.

    The core never probes with ``hasattr``: a method behind a flag that is False is never called.
    """

    files: bool = True
    """Paths name real files, so the core takes its LOCK file beside them."""
    discard: bool = False
    """``SegmentFile.discard`` gives space back."""
    drop_cache: bool = False
    """``SegmentFile.drop_cache`` makes the next read come from the medium."""
    vectored: bool = False
    """``SegmentFile.write_many`` and ``read_many``."""
    memory: bool = False
    """``SegmentFile.memory``."""
    paging: bool = False
    """``SegmentFile.prepare`` and ``unload``: hints about the memory behind windows."""
    fileno: bool = False
    """``SegmentFile.fileno``."""
    durable_writes: bool = False
    """The backend takes ``durable_writes=True`` and then every write is durable on return."""
    read_only: bool = False
    """``open_read_only`` of the backend: files on a medium that cannot be written can be looked at."""


@runtime_checkable
class SegmentFile(Protocol):
    """One open file. Reads and writes may run beside each other, on several threads.

    Two writes at once never touch the same sector of 512 bytes; a read may run beside a write to
    other bytes of a sector. After ``close`` no other method is called; it does not sync, and comes
    after every window that ``memory`` handed out has been released.

    Until a sync has covered it, a power cut may take any part of a write: of each sector that it
    touched, the bytes before it or any that were written since; no other sector changes, and every
    byte can still be read. Once ``write_at`` has returned, the death of the process takes nothing.
    """

    @property
    def size_bytes(self) -> int:
        """Size of the file now, as the file system tells (a file may be cut by others)."""

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``; never-written bytes read as zero.

        The core looks at the bytes soon and lets go of them; a view may outlive ``close`` by that.
        Raises: OSError where the range ends beyond the file or the medium fails.
        """

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data`` or raise; short counts and EINTR are the backend's to handle.

        The range lies inside the file. On an exception any part of the range may be written.
        ``data`` may be reused by the caller on return.
        """

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Make sure that later writes to the range cannot fail for want of space.

        Extends the file where the range ends beyond it; new bytes read as zero. Never changes
        bytes already written. All or nothing: on OSError space taken by the attempt is given
        back and the size is as before. Ranges that are reserved already may be named again.
        """

    def sync(self) -> None:
        """Make every byte written before the call durable, with the size and allocation.

        A failure that the system has reported is raised as OSError. Where an interrupt comes before that
        is raised, the OSError goes along as its cause or context: the system reports it once.
        Threads: callable beside writes; bytes written during the call may or may not be covered.
        """

    def close(self) -> None:
        """Release the file. Does not make anything durable. A second call does nothing."""


class CapableFile(SegmentFile, Protocol):
    """The methods behind the capabilities. A backend has those that it declares, no others."""

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Give the space of a range back; it reads as zero from then on."""

    def drop_cache(self) -> None:
        """Forget cached bytes, so that the next read tells what the medium holds."""

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents, each the concatenation of its buffers, in one submission.

        (``vectored``) On an exception any part of any extent may be written; on return, by
        exception or not, no operation is in flight and the buffers are free.
        """

    def read_many(self, reads: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Read several ``(at_bytes, length_bytes)`` extents; as ``read_at`` for each."""

    def memory(self, at_bytes: int, length_bytes: int) -> memoryview:
        """Return a window onto the file: writes to it are writes to the file.

        The core writes only to reserved ranges, and calls ``release()`` on the window.
        """

    def prepare(self, at_bytes: int, length_bytes: int) -> None:
        """A range of a window will be written from its beginning to its end soon, and fast.

        (``paging``) Of other ranges the core writes a few bytes now and then.
        """

    def unload(self, at_bytes: int, length_bytes: int) -> None:
        """Let the memory behind a range of a window go, which will not be written any more. (``paging``)

        Its bytes stay what they are: whoever looks at them again has them read again.
        """

    def fileno(self) -> int:
        """Return a descriptor on which the core itself may call pread and pwrite, and, while it opens a
        log, lseek for the next data.

        With ``memory`` as well: windows and descriptor are two views of the same bytes, at once.
        """


@runtime_checkable
class Backend(Protocol):
    """Access to directories and files. One instance serves one open log.

    Constructed by the core as ``cls(durable_writes=..., **options)``, where ``options`` are
    those of the builder or of the configuration file's table ``[backend_options]``.
    Threads: methods may be called from any thread; two calls never name the same path at once.
    """

    name: str
    api: int

    @property
    def capabilities(self) -> Capabilities:
        """What this instance can do; does not change during its life."""

    def make_directory(self, path: str) -> None:
        """Create the directory and missing parents, mode 0700, durably; existing ones are left."""

    def list(self, directory: str) -> Iterable[str]:
        """Return the names of the files in a directory, in any order."""

    def create(self, path: str, *, size_bytes: int) -> SegmentFile:
        """Create a file that must not exist (FileExistsError), mode 0600, reading as zeros.

        Sparse where the system can. Not durable before ``sync`` and ``sync_dir``. On an
        exception no file is left behind.
        """

    def open(self, path: str) -> SegmentFile:
        """Open an existing regular file for reading and writing; symbolic links are refused.

        A file whose creation a power cut interrupted may have any size up to the one it was created
        with, and opens, too. Raises: FileNotFoundError.
        """

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename a closed file within a directory, replacing what has the new name, at once.

        Durable after ``sync_dir``; until then a power cut leaves the one name or the other. Raises:
        FileNotFoundError; nothing was changed.
        """

    def remove(self, path: str) -> None:
        """Unlink a file that is not open. Durable after ``sync_dir``. Raises: FileNotFoundError."""

    def sync_dir(self, directory: str) -> None:
        """Make creations, renames and removals in the directory durable."""

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """``sync`` of several files, at once where the backend can. Raises the first failure, as ``sync``."""

    def close(self) -> None:
        """Release what the instance holds; a second call does nothing. All its files are closed before."""

    def probe(self) -> dict[str, Any]:
        """Facts for people, as ``walrus backends`` prints them: what is live, and why."""


class CapableBackend(Backend, Protocol):
    """The method behind the capability ``read_only``."""

    def open_read_only(self, path: str) -> SegmentFile:
        """As ``open``, without the right to write: the core calls only methods that read."""
