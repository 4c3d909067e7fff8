"""The tests are tested: bugs that a log engine could have are put into copies, and some test must fail.

Ordinarily the table is checked and a few quick bugs are tried; WALRUS_MUTANTS=all tries all of them,
WALRUS_MUTANTS=N a sample of N, from the seed WALRUS_MUTANTS_SEED. `python tests/mutants NAME...` tries some.
"""

from __future__ import annotations

import os
import re
from random import Random

import pytest

from .bug import Bug
from .bugs import BUGS
from .docs import table, written
from .seeding import PACKAGES, ROOT, check_caught, place_in_copy, seed, sources

BUGS_MIN = 30
SAMPLE = 2
ROOMS = {
    "syncer",
    "reclaim",
    "recovery",
    "chain",
    "cursorfile",
    "batch",
    "allocator",
    "reader",
    "lock",
    "files",
    "walrus_fd",
    "walrus_mmap",
}
"""Every one of these has a seeded bug."""


def chosen() -> list[Bug]:
    wanted = os.environ.get("WALRUS_MUTANTS", str(SAMPLE))
    if wanted == "all":
        return BUGS
    number = os.environ.get("WALRUS_MUTANTS_SEED", "1")
    quick = [bug for bug in BUGS if bug.is_quick] if wanted == str(SAMPLE) else BUGS
    return Random(f"mutants {number}").sample(quick, min(int(wanted), len(quick)))


def test_there_are_enough_in_every_room() -> None:
    assert len(BUGS) >= BUGS_MIN
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    found = {bug.file.split("/")[1] if bug.file.startswith("plugins") else bug.room for bug in BUGS}
    missing = ROOMS - found
    assert not missing, f"no bug in {missing}"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_stands_in_the_sources_as_they_are(bug: Bug) -> None:
    text = (ROOT / bug.file).read_text(encoding="utf-8")
    changed = seed(text, bug)
    assert changed != text
    compile(changed, bug.file, "exec")
    assert place_in_copy(bug.file) in {place for _path, place in sources()}
    for test in bug.caught_by:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists(), f"{path} is gone"
        if name:
            assert re.search(rf"^def {re.escape(name.split('[')[0])}\(", (ROOT / path).read_text(), re.M), (
                test
            )


def test_a_copy_is_what_is_imported_and_whole() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "__init__.py").exists()] == []
    assert "walrus_core/_pure/tail.py" in {place for _path, place in sources()}


def test_the_page_lists_them() -> None:
    """`python tests/mutants --write-docs` puts the table there."""
    assert written(ROOT / "docs" / "testing.md") == table()


@pytest.mark.skipif(
    os.environ.get("WALRUS_PURE", "") not in ("", "0"),
    reason="WALRUS_PURE is set: seeded bugs are tried by the run with the compiled twin",
)
@pytest.mark.timeout(1300)
@pytest.mark.parametrize("bug", chosen(), ids=lambda bug: bug.name)
def test_a_seeded_bug_is_caught(bug: Bug) -> None:
    if not check_caught(bug):
        pytest.skip(f"what catches it cannot run here: {', '.join(bug.caught_by)}")
