"""One seeded bug: a text of the sources, what stands in its place, and the tests that must notice."""

from __future__ import annotations

from pathlib import PurePosixPath

from attrs import field, frozen


@frozen
class Bug:
    """A defect that is put into a copy of the sources, never into the sources themselves."""

    name: str
    file: str
    """Path from the root of the repository."""
    before: str
    """Stands in the file exactly once."""
    after: str
    why: str
    """What an engine with this bug does wrong."""
    caught_by: tuple[str, ...] = field()
    """Node ids or paths of tests of the ordinary run; the first failure is enough."""
    pure: bool = False
    """Only the pure twin meets the code: the copy runs with WALRUS_PURE=1."""

    is_quick: bool = False
    """Caught within seconds: one of those that the ordinary run chooses from."""

    @caught_by.validator
    def _check_caught_by(self, _attribute: object, value: tuple[str, ...]) -> None:
        if not value:
            raise ValueError(f"no test is named that catches {self.name!r}")

    @property
    def room(self) -> str:
        """The module that has the bug, as people call it."""
        path = PurePosixPath(self.file).with_suffix("")
        return "/".join(path.parts[1:] if path.parts[0] == "walrus_core" else path.parts[2:])
