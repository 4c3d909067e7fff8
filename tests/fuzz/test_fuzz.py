"""The corpus again, and some seconds of new inputs.

WALRUS_FUZZ_SECONDS is the time for each target (default 1.5, less with the pure twin), WALRUS_FUZZ_SEED
the seed (default: another one each day). A failure prints the seed, the number of the input and the
input itself; the seed alone repeats it. Longer runs: ``python -m tests.fuzz TARGET SECONDS [SEED]``.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Iterator

import pytest

from walrus_core import hot

from . import targets

SECONDS = float(os.environ.get("WALRUS_FUZZ_SECONDS", "1.5" if hot.COMPILED else "0.7"))
SEED = int(os.environ.get("WALRUS_FUZZ_SEED", datetime.date.today().toordinal()))
CORPUS_BYTES_MAX = 200_000

pytestmark = pytest.mark.timeout(max(120, 3 * SECONDS))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_corpus(target: str) -> None:
    inputs = targets.corpus(target)
    assert len(inputs) >= 3, f"no corpus for {target}"
    for data in inputs:
        targets.try_input(target, data)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_new_inputs(target: str) -> None:
    assert targets.hunt(target, SEED, SECONDS) > 0


def test_the_corpus_is_small() -> None:
    files = [path for path in targets.CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < CORPUS_BYTES_MAX
    assert {path.parent.name for path in files} == set(targets.TARGETS)


def test_an_input_depends_on_seed_and_number_alone() -> None:
    known = targets.corpus("directory")
    first = [targets.make_input(known, 7, number) for number in range(50)]
    assert first == [targets.make_input(known, 7, number) for number in range(50)]
    assert len(set(first)) > 40 and first != [targets.make_input(known, 8, number) for number in range(50)]


def test_a_defect_is_told_with_what_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: bytes) -> None:
        if len(data) > 3:
            raise KeyError("a defect")

    monkeypatch.setitem(targets.TARGETS, "names", fail)
    with pytest.raises(targets.Finding, match=r"seed 5, input \d+: names fails on b.*KeyError"):
        targets.hunt("names", 5, 10, 500)


def test_an_input_that_takes_long_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "INPUT_SECONDS_MAX", 0.01)
    monkeypatch.setitem(targets.TARGETS, "names", lambda data: time.sleep(0.02))
    with pytest.raises(targets.Finding, match="takes"):
        targets.try_input("names", b"")
