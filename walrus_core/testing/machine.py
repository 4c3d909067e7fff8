"""A Hypothesis state machine: any order of operations on a backend does what it does to plain bytes.

The model is a ``bytearray`` for each name. Where power can be cut, it also keeps what each file was
since its last sync, and every sector must then be one of these. Needs the extra ``testing``.
"""

from __future__ import annotations

from typing import ClassVar, Optional

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from walrus_core.backend import CapableBackend, CapableFile
from walrus_core.testing.laws_capable import READS, WRITES, ways
from walrus_core.testing.laws_power import check_sectors
from walrus_core.testing.subject import Subject, hold, pattern, raises, same

NAMES = st.sampled_from(["a", "b", "c.free", "c.wal"])
SIZE_BYTES_MAX = 40_000
SIZES = st.one_of(st.sampled_from([0, 1, 511, 512, 4096, 16_384]), st.integers(0, SIZE_BYTES_MAX))
SHARES = st.integers(0, 9999).map(lambda number: number / 10_000)
LENGTHS = st.one_of(st.sampled_from([1, 512, 4096]), st.integers(0, 9000))
RARELY = st.sampled_from([False, False, False, True])
STEPS = 30
CUTS_TRIED = 3


class BackendMachine(RuleBasedStateMachine):
    """The operations. ``run_machine`` says on which backend."""

    subject: ClassVar[Subject]
    number: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        cls = type(self)
        cls.number += 1
        self.directory = f"{cls.subject.directory}/{cls.number}"
        self.backend: CapableBackend = self._new_backend()
        self.backend.make_directory(self.directory)
        self.backend.sync_dir(self.directory)
        self.files: dict[str, bytearray] = {}
        self.opened: dict[str, CapableFile] = {}
        self.images: dict[str, list[bytes]] = {}
        """By name what the file was since its last sync, the durable state first."""
        self.seed = 0

    def _new_backend(self) -> CapableBackend:
        return type(self).subject.make(self.directory)  # type: ignore[return-value]

    def teardown(self) -> None:
        """Close what is open, and leave nothing behind that the next run could meet."""
        self._close_all()
        for name in list(self.backend.list(self.directory)):
            self.backend.remove(self.path(name))
        self.backend.sync_dir(self.directory)
        self.backend.close()

    def _close_all(self) -> None:
        while self.opened:
            self.opened.popitem()[1].close()

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return f"{self.directory}/{name}"

    def file(self, name: str) -> CapableFile:
        """Return the open file of this name; opens it."""
        if name not in self.opened:
            self.opened[name] = self.backend.open(self.path(name))  # type: ignore[assignment]
        return self.opened[name]

    def picked(self, pick: float) -> str:
        """Return one of the files that are there."""
        names = sorted(self.files)
        return names[min(int(pick * len(names)), len(names) - 1)]

    def changed(self, name: str) -> None:
        """Note what the file is now, and look whether it is."""
        self.images[name].append(bytes(self.files[name]))
        same(
            self.file(name).read_at(0, len(self.files[name])), self.images[name][-1], f"{name} after a change"
        )

    def bytes_of(self, length_bytes: int) -> bytes:
        """Return new bytes, unlike all before."""
        self.seed += 1
        return pattern(length_bytes, self.seed)

    def span(self, name: str, at: float, length_bytes: int) -> tuple[int, int]:
        """Return (place, length) of a range inside the file."""
        size = len(self.files[name])
        place = int(at * size)
        return place, min(length_bytes, size - place)

    # --- names -------------------------------------------------------------------------------

    @initialize(size=st.integers(9000, SIZE_BYTES_MAX))
    def begin(self, size: int) -> None:
        """There is something to work with from the first step on."""
        self.create("a", size)

    @rule(name=NAMES, size=SIZES)
    def create(self, name: str, size: int) -> None:
        """Create a file, or be refused."""
        if name in self.files:
            raises(
                FileExistsError,
                f"create of {name}, which exists,",
                lambda: self.backend.create(self.path(name), size_bytes=size),
            )
            return
        self.opened[name] = self.backend.create(self.path(name), size_bytes=size)  # type: ignore[assignment]
        self.files[name] = bytearray(size)
        self.images[name] = [b"", bytes(size)]

    @precondition(lambda self: self.files)
    @rule(pick=SHARES, new=NAMES)
    def rename(self, pick: float, new: str) -> None:
        """Rename a closed file, over another one perhaps."""
        old = self.picked(pick)
        if old == new:
            return
        for name in (old, new):
            if name in self.opened:
                self.opened.pop(name).close()
        self.backend.rename(self.path(old), self.path(new))
        self.files[new], self.images[new] = self.files.pop(old), self.images.pop(old)

    @precondition(lambda self: self.files)
    @rule(pick=SHARES)
    def remove(self, pick: float) -> None:
        """Remove a closed file."""
        name = self.picked(pick)
        if name in self.opened:
            self.opened.pop(name).close()
        self.backend.remove(self.path(name))
        del self.files[name], self.images[name]

    @rule()
    def sync_dir(self) -> None:
        """Make names durable."""
        self.backend.sync_dir(self.directory)

    @rule(is_new=st.booleans())
    def reopen(self, is_new: bool) -> None:
        """Close every file; go on with a new backend, perhaps."""
        self._close_all()
        if is_new:
            self.backend.close()
            self.backend = self._new_backend()

    # --- bytes -------------------------------------------------------------------------------

    @precondition(lambda self: self.files)
    @rule(pick=SHARES, at=SHARES, length=LENGTHS, way=SHARES, is_zero=RARELY)
    def write(self, pick: float, at: float, length: int, way: float, is_zero: bool) -> None:
        """Write by one of the ways that the backend has."""
        name = self.picked(pick)
        place, length = self.span(name, at, length)
        if not length:
            return
        data = bytes(length) if is_zero else self.bytes_of(length)
        known = ways(self.backend, WRITES)
        writer = sorted(known)[min(int(way * len(known)), len(known) - 1)]
        if writer == "memory":
            self.file(name).reserve(place, length)
        known[writer](self.file(name), place, data)
        self.files[name][place : place + length] = data
        self.changed(name)

    @precondition(lambda self: self.files)
    @rule(pick=SHARES, at=SHARES, length=LENGTHS)
    def reserve(self, pick: float, at: float, length: int) -> None:
        """Reserve inside the file, or make it longer."""
        name = self.picked(pick)
        place = int(at * len(self.files[name]))
        if place + length > SIZE_BYTES_MAX:
            return
        self.file(name).reserve(place, length)
        self.files[name].extend(bytes(max(0, place + length - len(self.files[name]))))
        self.changed(name)

    @precondition(lambda self: self.files and self.backend.capabilities.discard)
    @rule(pick=SHARES, at=SHARES, length=LENGTHS)
    def discard(self, pick: float, at: float, length: int) -> None:
        """Give space back."""
        name = self.picked(pick)
        place, length = self.span(name, at, length)
        self.file(name).discard(place, length)
        self.files[name][place : place + length] = bytes(length)
        self.changed(name)

    @precondition(lambda self: self.files and self.backend.capabilities.drop_cache)
    @rule(pick=SHARES)
    def drop_cache(self, pick: float) -> None:
        """Forget cached bytes."""
        self.file(self.picked(pick)).drop_cache()

    @precondition(lambda self: self.files)
    @rule(pick=SHARES, everything=st.booleans())
    def sync(self, pick: float, everything: bool) -> None:
        """Make one file durable, or all of them at once."""
        names = sorted(self.files) if everything else [self.picked(pick)]
        if everything:
            self.backend.sync_many([self.file(name) for name in names])
        else:
            self.file(names[0]).sync()
        for name in names:
            self.images[name] = [bytes(self.files[name])]

    @precondition(lambda self: self.files)
    @rule(pick=SHARES, at=SHARES, length=LENGTHS)
    def read(self, pick: float, at: float, length: int) -> None:
        """Read by every way; a range that ends beyond the file is an error."""
        name = self.picked(pick)
        model = self.files[name]
        place = int(at * len(model))
        if place + length > len(model):
            raises(OSError, "a read beyond the end", lambda: self.file(name).read_at(place, length))
            length = len(model) - place
        for way, read in ways(self.backend, READS).items():
            same(
                read(self.file(name), place, length), bytes(model[place : place + length]), f"{name} by {way}"
            )

    @precondition(lambda self: self.subject.power_loss is not None and self.files)
    @rule()
    def cut_power(self) -> None:
        """Make the names durable and look at what a cut may leave now; the run itself goes on without one."""
        cut = self.subject.power_loss
        if cut is None:
            return
        self.backend.sync_dir(self.directory)
        for number, after in enumerate(cut(self.backend, self.directory)):
            if number < CUTS_TRIED:
                self._check_after(after)  # type: ignore[arg-type]
            after.close()

    def _check_after(self, after: CapableBackend) -> None:
        found = sorted(after.list(self.directory))
        hold(
            found == sorted(self.files), f"{found} are left of {sorted(self.files)}, whose names were durable"
        )
        for name, images in self.images.items():
            file = after.open(self.path(name))
            try:
                size = file.size_bytes
                sizes = {len(image) for image in images}
                hold(size in sizes, f"{name} has {size} bytes, and was only ever {sorted(sizes)} long")
                check_sectors(
                    bytes(file.read_at(0, size)), [image.ljust(size, b"\0") for image in images], name
                )
            finally:
                file.close()

    # --- what always holds -------------------------------------------------------------------

    @invariant()
    def names_and_sizes_agree(self) -> None:
        """The directory lists what is there, and every open file tells its size."""
        found = sorted(self.backend.list(self.directory))
        hold(found == sorted(self.files), f"list tells {found}, and there are {sorted(self.files)}")
        for name, file in self.opened.items():
            size = len(self.files[name])
            hold(file.size_bytes == size, f"size_bytes of {name} is {file.size_bytes}, not {size}")


def run_machine(subject: Subject, examples: int, *, seed: Optional[int] = None, shrinks: bool = True) -> None:
    """Run the machine on a backend. A failure prints the steps, and what repeats it.

    ``seed`` None draws anew each time; a number replays the same runs, in a process that has loaded
    the same modules (Hypothesis takes constants from them). ``shrinks`` False takes the first
    failure as it comes, instead of looking for the shortest (which may take minutes). Raises: BrokenLaw, or
    what the backend raised.
    """
    machine = type("Machine", (BackendMachine,), {"subject": subject, "number": 0})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=True,
        phases=[phase for phase in Phase if shrinks or phase not in (Phase.shrink, Phase.explain)],
        # The first failure as it is, not several in a group.
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine if seed is None else seeded(seed)(machine), settings=chosen)
