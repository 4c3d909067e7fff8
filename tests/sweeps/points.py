"""Interrupts at chosen bytecodes: where they may strike, and a call that is struck at the n-th one.

A signal is handled between two bytecodes, and ``sys.settrace`` with ``f_trace_opcodes`` can raise at
every one of them. Left out are the places where CPython looks for no signal, or where nothing
is learned:

- the bytecodes that call ``__exit__`` at the end of a ``with``: the interpreter looks for signals
  at calls, function entries and backward jumps, and none of them stands between the end of the
  body and that call;
- bytecodes that do nothing: for that reason the compiler leaves them out of the table of handlers;
- finalisers: what is raised there goes nowhere;
- the inside of functions without any state (frames and pages as bytes): they are struck where they
  begin, which is all the same to their callers; checksums and entries are not struck at all;
- the memory backend, which plays the kernel: system calls are not torn apart by a signal.
"""

from __future__ import annotations

import dis
import functools
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Optional

from attrs import define, field

import walrus_core

ENGINE = str(Path(walrus_core.__file__).parent) + os.sep
PURE = os.path.join(ENGINE, "_pure", "")
STATELESS = (ENGINE + "pages.py", PURE + "frames.py")
LEFT_OUT = (ENGINE + "memory.py", PURE + "entry.py")
BEFORE_EXIT = {"SWAP", "NOP", "POP_BLOCK", "ROT_TWO", "ROT_THREE"}


@define
class Struck:
    """What became of a call: the places it passed, where it was struck, what it returned."""

    count: int = 0
    paths: list[int] = field(factory=list)
    """For each place a number that says by which calls it was reached; passes of a loop share them."""
    place: str = ""
    result: Any = None
    """None where the call was struck."""

    @property
    def is_struck(self) -> bool:
        return bool(self.place)

    def telling(self) -> list[int]:
        """Return the numbers of the places to strike: of a loop, the first, second and last pass."""
        by_path: dict[int, list[int]] = {}
        for number, path in enumerate(self.paths, 1):
            by_path.setdefault(path, []).append(number)
        return sorted({n for passes in by_path.values() for n in (*passes[:2], passes[-1])})


@functools.cache
def quiet(code: CodeType) -> frozenset[int]:
    """Return the offsets of the bytecodes that call ``__exit__`` of a ``with`` that ended well, or do nothing."""
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]
    found = {step.offset for step in steps if step.opname == "NOP"}
    for place in range(len(steps) - 3):
        if not _loads_three_nones(steps[place : place + 3]):
            continue
        last = place + 3
        if steps[last].opname == "PRECALL":
            last += 1
        if not steps[last].opname.startswith("CALL"):
            continue
        first = place
        while first and steps[first - 1].opname in BEFORE_EXIT:
            first -= 1
        found.update(step.offset for step in steps[first : last + 1])
    return frozenset(found)


def _loads_three_nones(steps: list[dis.Instruction]) -> bool:
    if not (steps[0].opname == "LOAD_CONST" and steps[0].argval is None):
        return False
    return all(
        step.opname == "DUP_TOP" or (step.opname == "LOAD_CONST" and step.argval is None) for step in steps[1:]
    )


@functools.cache
def is_swept(code: CodeType) -> bool:
    """True for code of the engine in which an interrupt tells something."""
    path = code.co_filename
    return path.startswith(ENGINE) and not path.startswith(LEFT_OUT) and code.co_name != "__del__"


def strike(number: int, call: Callable[[], Any], error: type[BaseException] = KeyboardInterrupt) -> Struck:
    """Run ``call`` and raise ``error`` in it at the ``number``-th place (from 1; 0: only count them).

    The error is caught here; any other one is the caller's.
    """
    struck = Struck()

    def pass_place(frame: FrameType) -> None:
        struck.count += 1
        if not number:
            struck.paths.append(_path(frame))
        elif struck.count == number:
            struck.place = _describe(frame)
            raise error

    def local(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "opcode" and frame.f_lasti not in quiet(frame.f_code):
            pass_place(frame)
        return local

    def trace(frame: FrameType, event: str, _argument: object) -> Optional[Any]:
        if event != "call" or not is_swept(frame.f_code):
            return None
        if frame.f_code.co_filename.startswith(STATELESS):
            pass_place(frame)
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return local

    before = sys.gettrace()
    gc.disable()  # finalisers of other tests' objects would run at places of their own
    sys.settrace(trace)
    try:
        struck.result = call()
    except error:
        if not struck.is_struck:
            raise
    finally:
        sys.settrace(before)
        gc.enable()
    return struck


def _path(frame: FrameType) -> int:
    """Return a number for the bytecode and the calls of the engine that led there."""
    steps: list[object] = []
    at: Optional[FrameType] = frame
    while at is not None and is_swept(at.f_code):
        steps += (at.f_code, at.f_lasti)
        at = at.f_back
    return hash(tuple(steps))


def _describe(frame: FrameType) -> str:
    """Name the innermost engine frames, the innermost last."""
    names: list[str] = []
    at: Optional[FrameType] = frame
    while at is not None and len(names) < 3:
        if at.f_code.co_filename.startswith(ENGINE):
            where = at.f_code.co_filename.removeprefix(ENGINE)
            names.append(f"{where}:{at.f_lineno} {at.f_code.co_name}")
        at = at.f_back
    return f"{' > '.join(reversed(names))} (bytecode {frame.f_lasti})"
