"""The conformance kit for backends: every sentence of ``walrus_core.backend`` as a law that is a function.

A law takes a ``Subject`` (how to make the backend, and an empty directory) and raises ``BrokenLaw``
where the backend does something else, ``NotApplicable`` with the reason where it says nothing. No test
runner is needed: ``check_backend(make, directory)`` goes through them all. With pytest, subclass
``walrus_core.testing.suite.BackendSuite``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Optional

from attrs import frozen

from walrus_core.backend import Backend
from walrus_core.testing import (
    laws_bytes,
    laws_capable,
    laws_files,
    laws_log,
    laws_names,
    laws_power,
    laws_threads,
)
from walrus_core.testing.subject import BrokenLaw, Law, Maker, NotApplicable, Subject, laws_of

LAWS: dict[str, Law] = {
    **laws_of(laws_names),
    **laws_of(laws_bytes),
    **laws_of(laws_threads),
    **laws_of(laws_files),
    **laws_of(laws_capable),
    **laws_of(laws_power),
    **laws_of(laws_log),
}
"""Every law by its name: names, bytes, threads, files, capabilities and parity, power cuts, a whole log."""


@frozen
class Verdict:
    """What became of one law: held, not applicable (``reason``), or broken (``error``)."""

    law: Law
    reason: Optional[str] = None
    error: Optional[Exception] = None

    @property
    def is_broken(self) -> bool:
        """True where the backend does something else than the contract says."""
        return self.error is not None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.law.name}: broken: {type(self.error).__name__}: {self.error}"
        return f"{self.law.name}: " + ("held" if self.reason is None else f"not applicable: {self.reason}")


def judge_law(law: Law, subject: Subject) -> Verdict:
    """Put one law to a backend. Whatever the backend raises breaks it."""
    try:
        law(subject)
    except NotApplicable as reason:
        return Verdict(law, reason=str(reason))
    except Exception as error:
        return Verdict(law, error=error)
    return Verdict(law)


def judge_backend(
    make: Maker,
    directory: str,
    *,
    peek: Optional[Callable[[str], bytes]] = None,
    power_loss: Optional[Callable[[Backend, str], Iterable[Backend]]] = None,
    small_directory: Optional[Callable[[int], str]] = None,
) -> list[Verdict]:
    """Put every law to a backend, each in a new directory below ``directory``; see ``Subject``."""
    verdicts = []
    for name, law in LAWS.items():
        subject = Subject(make, os.path.join(directory, name), peek, power_loss, small_directory)
        verdicts.append(judge_law(law, subject))
    return verdicts


def check_backend(
    make: Maker, directory: str, *, peek: Optional[Callable[[str], bytes]] = None
) -> list[Verdict]:
    """As ``judge_backend``. Raises: BrokenLaw: names every law that is broken, one a line."""
    verdicts = judge_backend(make, directory, peek=peek)
    broken = [verdict for verdict in verdicts if verdict.is_broken]
    if broken:
        raise BrokenLaw("\n".join(map(str, broken))) from broken[0].error
    return verdicts
