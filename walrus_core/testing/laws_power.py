"""Laws of durability: what a power cut may take, and what not.

They need ``power_loss``: a way to have backends on what a cut may leave. A backend that writes to
another one gets it from a ``SimulatedDisk`` underneath. Everything in between is allowed: of a
sector of 512 bytes that was written since the last sync, the bytes before or any later ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from walrus_core.backend import CapableBackend, CapableFile
from walrus_core.testing.laws_capable import WRITES, ways
from walrus_core.testing.subject import SECTOR_BYTES, Subject, hold, law, open_file, pattern, same

SIZE_BYTES = 1 << 15
WHY = "so no power can be cut"


def _states(subject: Subject, backend: CapableBackend) -> Iterator[CapableBackend]:
    """Go through backends on what a power cut may leave now. Raises: NotApplicable."""
    subject.require_hook("power_loss", WHY)
    if subject.power_loss is not None:
        for after in subject.power_loss(backend, subject.directory):
            try:
                yield after  # type: ignore[misc]
            finally:
                after.close()


def _durable_file(subject: Subject, backend: CapableBackend, data: bytes) -> CapableFile:
    """Make the file ``one`` with these bytes, durable with its name."""
    subject.require_hook("power_loss", WHY)
    file = backend.create(subject.path("one"), size_bytes=SIZE_BYTES)
    file.write_at(0, data)
    file.sync()
    backend.sync_dir(subject.directory)
    return file  # type: ignore[return-value]


def check_sectors(found: bytes, images: list[bytes], what: str) -> None:
    """Every sector is what it was in one of the images, of which the first is the durable one.

    Raises: BrokenLaw.
    """
    for start in range(0, len(found), SECTOR_BYTES):
        sector = found[start : start + SECTOR_BYTES]
        allowed = {image[start : start + SECTOR_BYTES].ljust(len(sector), b"\0") for image in images}
        hold(
            sector in allowed,
            f"{what}: sector {start // SECTOR_BYTES} holds {sector[:16]!r}..., and was never written so",
        )


@law()
def synced_bytes_survive_a_power_cut(subject: Subject) -> None:
    """With size and name, where the directory was synced too."""
    data = pattern(20_000, "synced")
    with subject.backend() as backend, open_file(_durable_file(subject, backend, data)):
        for after in _states(subject, backend):
            with open_file(after.open(subject.path("one"))) as found:
                hold(found.size_bytes == SIZE_BYTES, f"the size is {found.size_bytes}, not {SIZE_BYTES}")
                same(found.read_at(0, SIZE_BYTES), data + bytes(SIZE_BYTES - 20_000), "a synced file")


@law()
def a_sync_covers_every_way_of_writing(subject: Subject) -> None:
    """write_at, write_many, a window, the descriptor, discard, reserve: all that came before the sync."""
    with subject.backend() as backend, open_file(_durable_file(subject, backend, b"")) as file:
        size = SIZE_BYTES + 5000
        file.reserve(0, size)
        model = bytearray(size)
        for number, (name, write) in enumerate(ways(backend, WRITES).items()):
            write(file, number * 3000 + 100, pattern(2000, name))
            model[number * 3000 + 100 : number * 3000 + 2100] = pattern(2000, name)
        if backend.capabilities.discard:
            file.discard(600, 700)
            model[600:1300] = bytes(700)
        backend.sync_many([file])
        for after in _states(subject, backend):
            with open_file(after.open(subject.path("one"))) as found:
                hold(found.size_bytes == size, f"the size is {found.size_bytes}, and {size} was synced")
                same(found.read_at(0, size), bytes(model), "a file that was synced after all ways of writing")


@law()
def an_unsynced_write_tears_at_sectors(subject: Subject) -> None:
    """Each sector has its old bytes or any it was given since; every byte can be read; others stay."""
    images = [pattern(20_000, "old") + bytes(SIZE_BYTES - 20_000)]
    with subject.backend() as backend, open_file(_durable_file(subject, backend, images[0])) as file:
        for number, (at, length) in enumerate(
            ((700, 1), (1000, 3000), (1500, 700), (19_990, 5000), (512, 512))
        ):
            data = pattern(length, ("new", number))
            file.write_at(at, data)
            images.append(images[-1][:at] + data + images[-1][at + length :])
            for after in _states(subject, backend):
                with open_file(after.open(subject.path("one"))) as found:
                    check_sectors(bytes(found.read_at(0, SIZE_BYTES)), images, f"after write {number}")


@law()
def an_unsynced_size_is_an_old_or_a_new_one(subject: Subject) -> None:
    """A reserve that no sync covered is there or not; what is new reads as zero, what was synced is there."""
    old = pattern(SIZE_BYTES, "old")
    with subject.backend() as backend, open_file(_durable_file(subject, backend, old)) as file:
        sizes = [SIZE_BYTES]
        for more in (1000, 4096, 20_000):
            file.reserve(sizes[-1], more)
            sizes.append(sizes[-1] + more)
        for after in _states(subject, backend):
            with open_file(after.open(subject.path("one"))) as found:
                size = found.size_bytes
                hold(size in sizes, f"the size is {size}, and was only ever one of {sizes}")
                same(found.read_at(0, size), old + bytes(size - SIZE_BYTES), "the file")


@law()
def a_new_file_is_there_whole_or_not_at_all(subject: Subject) -> None:
    """Before ``sync_dir`` a name may be lost; a file that is listed can be opened and read."""
    data = pattern(10_000, "new")
    with subject.backend() as backend:
        subject.require_hook("power_loss", WHY)
        with open_file(backend.create(subject.path("one"), size_bytes=SIZE_BYTES)) as file:
            for written in (b"", data):
                file.write_at(0, written)
                for after in _states(subject, backend):
                    for name in after.list(subject.directory):
                        with open_file(after.open(subject.path(name))) as found:
                            size = found.size_bytes
                            hold(0 <= size <= SIZE_BYTES, f"a new file of {SIZE_BYTES} bytes has {size}")
                            image = (written + bytes(SIZE_BYTES))[:size]
                            check_sectors(bytes(found.read_at(0, size)), [bytes(size), image], "a new file")
                            found.reserve(0, SIZE_BYTES)
                            found.write_at(0, b"goes on")
                            same(found.read_at(0, 7), b"goes on", "a write to a new file after the cut")


@law()
def a_rename_is_there_or_not(subject: Subject) -> None:
    """Never both names, never none, never a mixture; after ``sync_dir`` the new one, with every byte."""
    data = pattern(10_000, "moved")
    with subject.backend() as backend:
        _durable_file(subject, backend, data).close()
        backend.rename(subject.path("one"), subject.path("two"))
        for after in _states(subject, backend):
            names = list(after.list(subject.directory))
            hold(names in (["one"], ["two"]), f"after an unsynced rename there are {names}")
            with open_file(after.open(subject.path(names[0]))) as found:
                same(found.read_at(0, 10_000), data, "the file that was being renamed")
        backend.sync_dir(subject.directory)
        for after in _states(subject, backend):
            names = list(after.list(subject.directory))
            hold(names == ["two"], f"after a synced rename there are {names}")
            with open_file(after.open(subject.path("two"))) as found:
                same(found.read_at(0, 10_000), data, "the renamed file")


@law()
def a_removed_name_stays_removed(subject: Subject) -> None:
    """Once ``sync_dir`` has returned; before it, the file may be back with every byte."""
    data = pattern(10_000, "removed")
    with subject.backend() as backend:
        _durable_file(subject, backend, data).close()
        backend.remove(subject.path("one"))
        for after in _states(subject, backend):
            for name in after.list(subject.directory):
                with open_file(after.open(subject.path(name))) as found:
                    same(found.read_at(0, 10_000), data, "a removed file that is back")
        backend.sync_dir(subject.directory)
        for after in _states(subject, backend):
            hold(list(after.list(subject.directory)) == [], "a removed file is back after sync_dir")


@law("durable_writes")
def a_durable_write_survives_a_power_cut(subject: Subject) -> None:
    """Made with ``durable_writes=True``: each write, once it has returned, without any sync."""
    with (
        subject.backend(durable_writes=True) as backend,
        open_file(_durable_file(subject, backend, b"")) as file,
    ):
        model = bytearray(SIZE_BYTES)
        for number, at in enumerate((0, 700, 1300, 20_000)):
            data = pattern(1100, number)
            file.write_at(at, data)
            model[at : at + 1100] = data
            for after in _states(subject, backend):
                with open_file(after.open(subject.path("one"))) as found:
                    same(found.read_at(0, SIZE_BYTES), bytes(model), f"after durable write {number}")
