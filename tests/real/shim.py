"""Compiles ``shim.c``, and speaks to it inside the process that it was loaded into."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WRITE, SPACE, SYNC, NAME, OPEN, OTHER = 1, 2, 4, 8, 16, 32
ALL = WRITE | SPACE | SYNC | NAME | OPEN | OTHER
COUNT, KILL_BEFORE, KILL_AFTER, FAIL, SHORT = range(5)
FOR_EVER = 1 << 30


def compile_shim(folder: Path) -> Path:
    """Compile the shim into a folder; skips the test, by name, where that cannot be done."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the shim speaks to the C library of Linux")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = [compiler, "-std=gnu11", "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    # No reason to skip: a shim that is missing or broken would take its tests along without a word.
    assert done.returncode == 0, f"the shim does not compile: {done.stderr.strip()[-300:]}"
    return library


class Shim:
    """The shim as it is loaded into this process, by LD_PRELOAD."""

    def __init__(self, folder: str) -> None:
        """``folder``: only calls on files below it count."""
        self._library = ctypes.CDLL(None)
        self._library.shim_arm.argtypes = [
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_int,
        ]
        self._library.shim_arm.restype = None
        self._library.shim_disarm.restype = ctypes.c_long
        self._library.shim_watch.argtypes = [ctypes.c_char_p]
        self._library.shim_watch.restype = None
        self._library.shim_watch(folder.encode())

    def arm(self, action: int, kinds: int, call: int, argument: int = 0, times: int = 1) -> None:
        """Let ``action`` happen at calls number [call, call + times) of these kinds, from 1 on.

        ``argument`` is the errno of FAIL, or the bytes that SHORT writes (0: all but one).
        """
        self._library.shim_arm(action, kinds, call, argument, times)

    def disarm(self) -> int:
        """Pass everything on again. Returns: how many calls were counted."""
        return int(self._library.shim_disarm())
