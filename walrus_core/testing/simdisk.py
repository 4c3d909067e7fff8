"""A disk that can lose power: which bytes survive is drawn from everything a real one may keep.

``SimulatedDisk`` is the medium with its cache. It knows for every file what is durable and, in order,
what was written since the last sync. ``power_loss_states`` goes through the disks that a power cut may
leave now:

* of every 512-byte sector, its durable bytes or any later state that it was in;
* of the size, the durable one or any that it has had since;
* of the names, any subset of the creations, renames and removals since the last directory sync: new
  files gone, removed files back.

``after_death`` is the same disk after the death of the process only: nothing is lost.

``SimulatedBackend`` is the seam of the core onto it, with every optional capability. For the author of
a backend it shows what each method may and may not promise: ``write_at`` and ``reserve`` change only the
cache, ``sync`` makes one file durable and not its name, ``sync_dir`` names and no bytes, a failed sync
leaves a cache that lies until it is dropped. A log that survives here does not rely on more.

An armed disk counts the operations that change something and raises ``PowerLoss`` at a chosen one,
before, within or after its effect; from then on it is dead: whatever the core still tries changes
nothing. Everything random comes from the ``Random`` that the disk was given, so a seed replays.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, Optional

from walrus_core.backend import BACKEND_API, Buffer, Capabilities, SegmentFile
from walrus_core.testing.inode import ALL, NONE, PAGE, PATTERNS, Inode, Naming, rename_in, surviving

EVERYTHING = Capabilities(
    files=False, discard=True, drop_cache=True, vectored=True, memory=True, durable_writes=True
)
"""All that a simulated disk can do. A log that writes through windows takes no other way: leave ``memory``
out to see its writes."""


class PowerLoss(BaseException):
    """The machine stopped here. No ``except Exception`` of the core may hold it up."""


class SimulatedDisk:
    """A directory tree with its cache, and the faults that wait in it.

    The counts of ``..._in`` fall with each call; the call that brings one to 0 fails, and all later
    ones where ``faults_stay``.
    """

    def __init__(self, random: Random, capabilities: Capabilities = EVERYTHING) -> None:
        """``capabilities`` is what the backends on this disk declare."""
        self.random = random
        self.capabilities = capabilities
        self.writes_durably = False
        """As with O_DSYNC; the backend's option."""
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        self.namings: list[Naming] = []
        self.watcher: Optional[Callable[[str], None]] = None
        """Called before every operation that changes something, with its description."""
        self.fuse: Optional[int] = None
        """Operations until the machine stops; None: it does not."""
        self.full_for = 0
        """So many of the next requests for space fail."""
        self.capacity_bytes: Optional[int] = None
        """Files cannot grow beyond this together; None: they can."""
        self.writes_need_space = False
        """Writes are requests for space too: this file system allocates late."""
        self.write_fails_in: Optional[int] = None
        """Writes until one of them fails for good, with its first bytes written; None: none does."""
        self.sync_fails_in: Optional[int] = None
        """Syncs until one of them fails; None: none does."""
        self.read_lies_in: Optional[int] = None
        """Reads until one of them returns a flipped bit; None: none does."""
        self.faults_stay = False
        """A fault that has come stays."""
        self.is_dead = False
        self.trace: list[str] = []

    def _copy(self) -> SimulatedDisk:
        return SimulatedDisk(self.random, self.capabilities)

    # --- what is left ------------------------------------------------------------------------

    def after_power_loss(
        self, pattern: Optional[str] = None, random: Optional[Random] = None
    ) -> SimulatedDisk:
        """Return one of the disks that a power cut may leave now.

        ``pattern`` is one of ``PATTERNS``, or None for a draw of its own for each file. ``random``
        (default: the disk's) is drawn from, and is that of the new disk.
        """
        random = self.random if random is None else random
        disk = SimulatedDisk(random, self.capabilities)
        names = dict(self.durable_names)
        share = {NONE: 0.0, ALL: 1.0}.get(pattern or "", random.choice([0.0, 0.5, 1.0]))
        for naming in self.namings:
            if random.random() < share:
                rename_in(names, naming)
        for path, inode in names.items():
            disk.names[path] = disk.durable_names[path] = inode.after_power_loss(random, pattern)
        return disk

    def power_loss_states(self, count: int, random: Optional[Random] = None) -> Iterator[SimulatedDisk]:
        """Go through ``count`` disks that a power cut may leave now: each pattern, then random ones."""
        for place in range(count):
            yield self.after_power_loss(PATTERNS[place] if place < len(PATTERNS) else None, random)

    def digest(self) -> int:
        """Return a digest of what is durable; not the same in each process."""
        return hash(tuple(sorted((path, inode.digest()) for path, inode in self.durable_names.items())))

    def after_death(self) -> SimulatedDisk:
        """Return the disk after the death of the process: the cache is kept, or written back in part."""
        disk = self._copy()
        disk.names, disk.durable_names, disk.namings = self.names, self.durable_names, self.namings
        for inode in self.names.values():
            inode.look_at_windows()
            if inode.windows:
                inode.live, inode.windows = bytearray(inode.live), set()
        if self.random.random() < 0.2:
            # The system had memory to free: clean pages that a failed sync left are read anew.
            for inode in self.names.values():
                inode.drop_cache()
        return disk

    # --- faults ------------------------------------------------------------------------------

    def stop_in(self, operations: int) -> None:
        """Stop the machine at the n-th operation from now that changes something."""
        self.fuse = operations

    def change(
        self, what: str, effect: Callable[[], None], partly: Optional[Callable[[], None]] = None
    ) -> None:
        """Carry out one operation, unless the machine stops at it.

        ``partly`` is the effect that an operation has if the machine stops in the middle of it.
        Raises: PowerLoss: the machine stopped, now or before.
        """
        if self.is_dead:
            raise PowerLoss(what)
        self.trace.append(what)
        if self.watcher is not None:
            self.watcher(what)
        if self.fuse is None:
            effect()
            return
        self.fuse -= 1
        if self.fuse > 0:
            effect()
            return
        self.is_dead = True
        stage = self.random.choice(["before", "within", "after"])
        self.trace.append(f"stopped {stage} it")
        if stage == "after":
            effect()
        elif stage == "within" and partly is not None:
            partly()
        raise PowerLoss(what)

    def _comes(self, name: str) -> bool:
        """Count one call of a kind. Returns: whether its fault has come."""
        left: Optional[int] = getattr(self, name)
        if left is None or self.is_dead:
            return False
        setattr(self, name, max(left - 1, 0))
        if left > 1:
            return False
        if not self.faults_stay:
            setattr(self, name, None)
        return True

    def take_space(self, growth_bytes: int = 0) -> None:
        """Raises: OSError: the disk is full, or would be."""
        if self.is_dead:
            return
        is_full = self.full_for > 0
        if self.capacity_bytes is not None and growth_bytes > 0:
            used = sum(len(inode.live) for inode in self.names.values())
            is_full = is_full or used + growth_bytes > self.capacity_bytes
        if is_full:
            self.full_for = max(self.full_for - (not self.faults_stay), 0)
            self.trace.append("disk full")
            raise OSError(errno.ENOSPC, "no space left")

    def check_write(self, partly: Callable[[int], None], at: int, length: int) -> None:
        """Raises: OSError: the write fails, with its first bytes written: whole pages on a full disk."""
        if self._comes("write_fails_in"):
            self.trace.append("write fails")
            partly(self.random.randint(0, length))
            raise OSError(errno.EIO, "input/output error")
        if self.full_for and self.writes_need_space and not self.is_dead:
            partly(self.random.choice([0, *range(-at % PAGE, length, PAGE)]))
            self.take_space()

    def lie(self, data: bytes) -> bytes:
        """Return what a read hands out for these bytes: them, or a lie of one bit."""
        if not data or not self._comes("read_lies_in"):
            return data
        self.trace.append("a read lies")
        lying = bytearray(data)
        lying[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(lying)

    def sync(self, path: str, inode: Inode) -> None:
        """Sync one file, or fail and leave it in the state that Linux leaves it in."""
        if self._comes("sync_fails_in"):
            self.trace.append(f"sync {path} fails")
            inode.settle(surviving(self.random, inode))
            inode.lies = True
            raise OSError(errno.EIO, "input/output error")
        self.change(f"sync {path}", inode.sync)


class SimulatedFile:
    """One open file of a disk."""

    def __init__(self, disk: SimulatedDisk, path: str, inode: Inode) -> None:
        """``inode`` outlives the name: a file that is removed while open can still be read."""
        self._disk = disk
        self._path = os.path.basename(path)
        self.inode = inode

    @property
    def size_bytes(self) -> int:
        """Size of the file now."""
        return len(self.inode.live)

    def _check(self, at_bytes: int, length_bytes: int) -> None:
        size = len(self.inode.live)
        if at_bytes < 0 or length_bytes < 0 or at_bytes + length_bytes > size:
            raise OSError(
                errno.EIO, f"[{at_bytes}, {at_bytes + length_bytes}) ends beyond {size} of {self._path}"
            )

    def read_at(self, at_bytes: int, length_bytes: int) -> Buffer:
        """Return exactly ``length_bytes``."""
        if self._disk.is_dead:
            raise PowerLoss("read")
        self._check(at_bytes, length_bytes)
        return self._disk.lie(bytes(self.inode.live[at_bytes : at_bytes + length_bytes]))

    def write_at(self, at_bytes: int, data: Buffer) -> None:
        """Write all of ``data`` into the cache."""
        self._check(at_bytes, len(data))
        disk, whole = self._disk, bytes(data)
        part = whole[: disk.random.randint(0, len(whole))] if disk.fuse == 1 else b""
        disk.check_write(lambda length: self.inode.write(at_bytes, whole[:length]), at_bytes, len(whole))
        disk.change(
            f"write {self._path} {at_bytes}+{len(whole)}",
            lambda: self.inode.write(at_bytes, whole),
            lambda: self.inode.write(at_bytes, part),
        )
        if disk.writes_durably:
            disk.change(f"write through {self._path}", lambda: self.inode.write_durably(at_bytes, whole))

    def write_many(self, writes: Sequence[tuple[int, Sequence[Buffer]]]) -> None:
        """Write several extents, in any order."""
        whole = [(at, b"".join(bytes(data) for data in buffers)) for at, buffers in writes]
        for at, data in self._disk.random.sample(whole, len(whole)):
            self.write_at(at, data)

    def read_many(self, reads: Sequence[tuple[int, int]]) -> list[Buffer]:
        """Read several extents."""
        return [self.read_at(at, length) for at, length in reads]

    def reserve(self, at_bytes: int, length_bytes: int) -> None:
        """Grow the file where the range ends beyond it."""
        end = at_bytes + length_bytes
        self._disk.take_space(end - len(self.inode.live))
        self._disk.change(f"reserve {self._path} {at_bytes}+{length_bytes}", lambda: self.inode.grow(end))

    def discard(self, at_bytes: int, length_bytes: int) -> None:
        """Zero the range."""
        self._check(at_bytes, length_bytes)
        zeros = bytes(length_bytes)
        self._disk.change(
            f"discard {self._path} {at_bytes}+{length_bytes}", lambda: self.inode.write(at_bytes, zeros)
        )

    def memory(self, at_bytes: int, length_bytes: int) -> memoryview:
        """Return a window onto the file."""
        self._check(at_bytes, length_bytes)
        return self.inode.open_window(at_bytes, length_bytes)

    def drop_cache(self) -> None:
        """Make the next read tell what the medium holds (and what is still to be written)."""
        self.inode.drop_cache()

    def sync(self) -> None:
        """Make the file durable."""
        self._disk.sync(self._path, self.inode)

    def close(self) -> None:
        """Nothing to release."""


class SimulatedBackend:
    """The seam of the core onto a ``SimulatedDisk``; one instance for one open.

    Give it to a log as ``Walrus(path, backend=SimulatedBackend(disk))``; ``disk.writes_durably`` says
    whether it was made with ``durable_writes=True``.
    """

    name = "simulated"
    api = BACKEND_API

    def __init__(self, disk: SimulatedDisk) -> None:
        """The disk outlives the backend."""
        self.disk = disk

    @property
    def capabilities(self) -> Capabilities:
        """What the disk was made with."""
        return self.disk.capabilities

    def make_directory(self, path: str) -> None:
        """Nothing to do."""

    def list(self, directory: str) -> Iterable[str]:
        """Return the names in the directory, in any order."""
        names = [os.path.basename(path) for path in self.disk.names if os.path.dirname(path) == directory]
        return self.disk.random.sample(names, len(names))

    def create(self, path: str, *, size_bytes: int) -> SegmentFile:
        """Create a file of zeros that must not exist."""
        if path in self.disk.names:
            raise FileExistsError(errno.EEXIST, "file exists", path)
        self.disk.take_space(size_bytes)
        inode = Inode()
        naming: Naming = ("create", path, inode)
        self._name(f"create {os.path.basename(path)}", naming)
        inode.grow(size_bytes)
        return SimulatedFile(self.disk, path, inode)

    def open(self, path: str) -> SegmentFile:
        """Open an existing file."""
        if self.disk.is_dead:
            raise PowerLoss("open")
        inode = self.disk.names.get(path)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return SimulatedFile(self.disk, path, inode)

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename a file, replacing what has the new name."""
        if old_path not in self.disk.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", old_path)
        self._name(f"rename {old_path} {new_path}", ("rename", f"{old_path}\0{new_path}", None))

    def remove(self, path: str) -> None:
        """Remove a file."""
        if path not in self.disk.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        self._name(f"remove {os.path.basename(path)}", ("remove", path, None))

    def _name(self, what: str, naming: Naming) -> None:
        def effect() -> None:
            rename_in(self.disk.names, naming)
            self.disk.namings.append(naming)

        self.disk.change(what, effect)

    def sync_dir(self, directory: str) -> None:
        """Make the names durable."""

        def effect() -> None:
            for naming in self.disk.namings:
                rename_in(self.disk.durable_names, naming)
            self.disk.namings.clear()

        self.disk.change("sync directory", effect)

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """Sync several files, in any order; the machine may stop between two of them."""
        for file in self.disk.random.sample(list(files), len(files)):
            file.sync()

    def close(self) -> None:
        """The disk lives on."""

    def probe(self) -> dict[str, Any]:
        """Say what it is."""
        return {"medium": "simulated disk"}
