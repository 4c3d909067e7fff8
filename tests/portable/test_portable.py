"""The run is as portable as it says: with a wrong PYTHONPATH all the other tests would pass as well."""

from __future__ import annotations

import importlib
import os

import pytest

from walrus_fd.backend import FdBackend
from walrus_mmap.backend import MmapBackend

pytestmark = pytest.mark.skipif(
    os.environ.get("WALRUS_EXPECT_PORTABLE") != "1",
    reason="WALRUS_EXPECT_PORTABLE is not 1: this run has the calls of its system",
)
CAPABILITIES = ("fileno", "discard", "drop_cache", "paging", "durable_writes")
SHOWN = f"""
    from walrus_fd.backend import FdBackend
    found = FdBackend().capabilities
    print([name for name in {CAPABILITIES} if getattr(found, name)])
"""


@pytest.mark.parametrize("name", ["pread", "pwrite", "fdatasync", "fork", "O_NOFOLLOW", "SEEK_DATA"])
def test_the_call_is_taken_away(name):
    assert not hasattr(os, name)


@pytest.mark.parametrize("name", ["fcntl", "resource"])
def test_the_module_is_taken_away(name):
    with pytest.raises(ImportError):
        importlib.import_module(name)


@pytest.mark.parametrize("cls", [FdBackend, MmapBackend])
def test_the_backend_has_nothing_that_needs_them(cls):
    found = cls().capabilities
    assert [name for name in CAPABILITIES if getattr(found, name)] == []


def test_so_it_is_in_children(run_child):
    assert run_child(SHOWN).stdout == "[]\n"
