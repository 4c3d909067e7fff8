"""``BackendSuite``: the conformance kit as a pytest class. Needs the extra ``testing``.

    class TestMine(BackendSuite):
        def make_backend(self, path, **options):
            return MyBackend(**options)

Every law of ``walrus_core.testing.contract`` becomes a test ``test_<law>``, and the state machine of
``walrus_core.testing.machine`` one more. What a backend does not declare is skipped, by name and with
the reason. No law can be overridden: say no with a capability.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Optional

import pytest

from walrus_core.backend import Backend
from walrus_core.testing.contract import LAWS
from walrus_core.testing.machine import run_machine
from walrus_core.testing.subject import Law, NotApplicable, Subject

SHARED = ("make_backend", "peek", "power_loss", "examples")
"""What a subclass may say; everything else of the suite stays as it is."""


def _never_overridden(cls: type) -> list[str]:
    """Return the names of the suite that the class, or a class mixed into it, has of its own."""
    own = [name for name in vars(BackendSuite) if name not in SHARED and not name.startswith("__")]
    return [name for name in own if getattr(cls, name, None) is not getattr(BackendSuite, name)]


class BackendSuite:
    """Subclass it, give ``make_backend``, and pytest does the rest.

    pytest makes an object for each test, so what ``make_backend`` keeps on ``self`` lasts for one test.
    """

    examples = 25
    """Runs of the state machine, of up to 30 operations each."""

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if overridden := _never_overridden(cls):
            raise TypeError(
                f"{cls.__name__} overrides {', '.join(overridden)}: a law is not overridden; "
                "what a backend cannot do it does not declare in its capabilities"
            )

    # --- what an author gives -------------------------------------------------------------------

    def make_backend(self, path: str, **options: Any) -> Backend:
        """Return a new backend for files below ``path``; it sees what earlier ones have left there.

        ``options`` is nothing, or ``durable_writes=True`` where the backend declares that it can.
        """
        raise NotImplementedError(f"{type(self).__name__} must give make_backend(self, path, **options)")

    def peek(self, path: str) -> bytes:
        """Return the bytes of a file without the backend. Leave it out where they look otherwise there."""
        raise NotApplicable("no peek was given, so nothing can look past the backend")

    def power_loss(self, backend: Backend, path: str) -> Iterable[Backend]:
        """Go through new backends on what a power cut may leave now, as ``SimulatedDisk`` can. Optional."""
        raise NotApplicable("no power_loss was given, so no power can be cut")

    # --- what the kit does ----------------------------------------------------------------------

    def subject(self, directory: Path) -> Subject:
        """Return what the laws are given."""
        has = {name: getattr(type(self), name) is not getattr(BackendSuite, name) for name in SHARED}
        return Subject(
            self.make_backend,
            str(directory / "log"),
            peek=self.peek if has["peek"] else None,
            power_loss=self.power_loss if has["power_loss"] else None,
        )

    def test_random_operations_agree_with_a_model(self, tmp_path: Path) -> None:
        """Hypothesis: any order of operations on several files does what it does to plain bytes."""
        with skipping():
            run_machine(self.subject(tmp_path), self.examples)


def _as_test(law: Law) -> Callable[[BackendSuite, Path], None]:
    def test(self: BackendSuite, tmp_path: Path) -> None:
        with ExitStack() as stack, skipping():
            subject = self.subject(tmp_path)
            if law.name == "no_space_leaves_old_bytes":
                subject.require("files")
                place = stack.enter_context(small_medium(tmp_path / "small", 2 << 20))
                subject = Subject(subject.make, subject.directory, small_directory=lambda _size: place)
            law(subject)

    test.__name__ = test.__qualname__ = f"test_{law.name}"
    test.__doc__ = law.check.__doc__
    return test


for _law in LAWS.values():
    setattr(BackendSuite, f"test_{_law.name}", _as_test(_law))


@contextmanager
def skipping() -> Iterator[None]:
    """Skip the test, with the reason, where a law is not applicable."""
    reason: Optional[str] = None
    try:
        yield
    except NotApplicable as found:
        reason = str(found)
    if reason is not None:
        pytest.skip(reason)


@contextmanager
def small_medium(point: Path, size_bytes: int) -> Iterator[str]:
    """Mount a tmpfs of a size. Raises: NotApplicable: not allowed here."""
    point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(point)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotApplicable("this system has no mount: nothing small enough to fill up") from None
    if done.returncode:
        raise NotApplicable(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield str(point / "log")
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)
