"""What a law is, and what it is given: a backend to be made, and a directory to make it in.

No law uses a bare ``assert``: a kit that says nothing under ``python -O`` would pass everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Optional, cast

from attrs import field, frozen

from walrus_core.backend import Backend, CapableBackend, CapableFile, SegmentFile

SECTOR_BYTES = 512


class BrokenLaw(AssertionError):
    """A backend does not do what the contract says."""


class NotApplicable(Exception):
    """A law says nothing about this backend here; the message is the reason, for people."""


Maker = Callable[..., Backend]
"""``make(directory)``: a backend that sees what earlier ones of the same directory have left; with
``durable_writes=True`` beside it where the backend declares them."""


@frozen
class Subject:
    """A backend that is put to the test, in an empty directory of its own.

    ``peek`` reads the bytes of a file by other means than the backend. ``power_loss`` takes the
    backend and the directory and goes through backends on what a power cut may leave now.
    ``small_directory`` makes a directory on a medium of so many bytes. Each is None where the author
    has none; the laws that need it are then not applicable.
    """

    make: Maker
    directory: str
    peek: Optional[Callable[[str], bytes]] = None
    power_loss: Optional[Callable[[Backend, str], Iterable[Backend]]] = None
    small_directory: Optional[Callable[[int], str]] = None

    def path(self, name: str) -> str:
        """Return the path of a file in the directory."""
        return f"{self.directory}/{name}"

    @contextmanager
    def backend(self, **options: Any) -> Iterator[CapableBackend]:
        """Make a backend and the directory; close it at the end."""
        backend = self.make(self.directory, **options)
        try:
            backend.make_directory(self.directory)
            yield cast(CapableBackend, backend)
        finally:
            backend.close()

    @contextmanager
    def file(self, size_bytes: int = 1 << 17) -> Iterator[tuple[CapableBackend, CapableFile]]:
        """Make a backend and a new file ``one`` of zeros; close both at the end."""
        with (
            self.backend() as backend,
            open_file(backend.create(self.path("one"), size_bytes=size_bytes)) as file,
        ):
            yield backend, file

    def require(self, flag: str) -> None:
        """Raises: NotApplicable: the backend does not declare this capability."""
        backend = self.make(self.directory)
        try:
            if not getattr(backend.capabilities, flag):
                raise NotApplicable(f"the backend {backend.name} does not declare {flag!r}")
        finally:
            backend.close()

    def require_hook(self, hook: str, why: str) -> None:
        """Raises: NotApplicable: the author gave no such function."""
        if getattr(self, hook) is None:
            raise NotApplicable(f"no {hook} was given, {why}")


@contextmanager
def open_file(file: SegmentFile) -> Iterator[CapableFile]:
    """View a file as one that has every method, and close it at the end."""
    try:
        yield cast(CapableFile, file)
    finally:
        file.close()


@frozen
class Law:
    """One sentence of the contract as a function. Its name is the sentence.

    Called with a ``Subject``. Raises: BrokenLaw, or what the backend raised; NotApplicable.
    """

    name: str
    check: Callable[[Subject], None]
    needs: tuple[str, ...] = field(default=())

    def __call__(self, subject: Subject) -> None:
        for flag in self.needs:
            subject.require(flag)
        self.check(subject)

    @property
    def explanation(self) -> str:
        """The first line of the law's docstring."""
        return (self.check.__doc__ or "").partition("\n")[0]


def law(*needs: str) -> Callable[[Callable[[Subject], None]], Law]:
    """Make a function a law, which is asked only of backends that declare the capabilities ``needs``."""
    return lambda check: Law(check.__name__, check, needs)


def laws_of(module: Any) -> dict[str, Law]:
    """Return the laws that a module holds, in the order in which they stand there."""
    return {found.name: found for found in vars(module).values() if isinstance(found, Law)}


def hold(is_so: object, message: str) -> None:
    """Raises: BrokenLaw: it is not so."""
    if not is_so:
        raise BrokenLaw(message)


def same(found: Any, wanted: bytes, what: str) -> None:
    """Compare bytes; says where they differ first. Raises: BrokenLaw."""
    got = bytes(found)
    if got == wanted:
        return
    at = next(
        (n for n, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted))
    )
    raise BrokenLaw(
        f"{what}: {len(got)} bytes instead of {len(wanted)}, or other ones: from byte {at} on "
        f"{got[at : at + 16]!r} instead of {wanted[at : at + 16]!r}"
    )


def raises(kind: type[OSError], what: str, call: Callable[[], object]) -> OSError:
    """Return the error that the call raises. Raises: BrokenLaw: none, or no error of this kind."""
    try:
        call()
    except kind as error:
        return error
    except Exception as error:
        raise BrokenLaw(
            f"{what} must raise {kind.__name__}, and raised {type(error).__name__}: {error}"
        ) from error
    raise BrokenLaw(f"{what} must raise {kind.__name__}, and raised nothing")


def pattern(length_bytes: int, seed: object) -> bytes:
    """Return bytes that follow from the seed; none of them is zero."""
    return Random(f"{seed}").randbytes(length_bytes).replace(b"\0", b"\x01")
