"""Interrupts at chosen bytecodes: where they may strike, and a call that is struck at the n-th one.

``sys.settrace`` with ``f_trace_opcodes`` can raise before every bytecode. CPython itself looks for
signals at fewer places: at the beginning of a function, after a call, at a jump back; and what is
raised there meets the handlers of that place. So a bytecode is struck only where it has the same
handlers as the last such place before it. That leaves out the steps from the end of a ``with`` or
``try`` body up to the first call behind it (``__exit__``, the ``release`` of a ``finally``).

Left out are also, because nothing is learned there:

- finalisers: what is raised in them goes nowhere;
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
from typing import Any, NamedTuple, Optional

from attrs import define, field

import walrus_core

ENGINE = str(Path(walrus_core.__file__).parent) + os.sep
PURE = os.path.join(ENGINE, "_pure", "")
STATELESS = (ENGINE + "pages.py", PURE + "frames.py")
LEFT_OUT = (ENGINE + "memory.py", PURE + "entry.py", os.path.join(ENGINE, "testing", ""))
CAN_SWEEP = sys.version_info >= (3, 11)
"""Older interpreters have no table of handlers to ask."""


@define
class Struck:
    """What became of a call: the places it passed, where it was struck, what it returned."""

    count: int = 0
    paths: list[int] = field(factory=list)
    """For each place a number that says by which calls it was reached; passes of a loop share them."""
    functions: list[str] = field(factory=list)
    """For each place the name of the function that it lies in."""
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


class Step(NamedTuple):
    """One bytecode: where its handler begins (-1: none), and whether signals are looked for at it."""

    handler: int
    looks: bool


@functools.cache
def steps_of(code: CodeType) -> dict[int, Step]:
    """Return the bytecodes of a function by their offsets."""
    # The entries do not overlap: each names the innermost handler, which begins the next one itself.
    entries = [(entry.start, entry.end, entry.target) for entry in dis.Bytecode(code).exception_entries]
    found: dict[int, Step] = {}
    for step in dis.get_instructions(code):
        handler = next((target for start, end, target in entries if start <= step.offset < end), -1)
        found[step.offset] = Step(handler, step.opname.startswith(("CALL", "JUMP_BACKWARD")))
    return found


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
            struck.functions.append(frame.f_code.co_name)
        elif struck.count == number:
            struck.place = _describe(frame)
            raise error

    def watch(frame: FrameType) -> Callable[..., Any]:
        steps = steps_of(frame.f_code)
        current: Optional[int] = -1

        def local(frame: FrameType, event: str, _argument: object) -> Any:
            nonlocal current
            if event == "opcode":
                step = steps[frame.f_lasti]
                if step.handler == current:
                    pass_place(frame)
                else:
                    current = None
                if step.looks:
                    current = step.handler
            return local

        return local

    def trace(frame: FrameType, event: str, _argument: object) -> Optional[Any]:
        if event != "call" or not is_swept(frame.f_code):
            return None
        if frame.f_code.co_filename.startswith(STATELESS):
            pass_place(frame)
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return watch(frame)

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
