"""``Uring``: whether a backend has an io_uring, decided by real I/O when first needed, and why not.

Callers hold the plain path: an answer of None means "do it yourself, nothing was submitted".
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Optional

from walrus_fd import binding
from walrus_fd.binding import Unusable
from walrus_fd.ring import QUEUE_SIZE, Operation, Ring

_SETUP_SYSCALL = 425


class Uring:
    """The ring of one backend, if there can be one.

    Threads: any. A ring that is busy (another thread, or a signal handler in the same thread)
    answers like one that is absent, because plain calls are never worse than waiting.
    """

    def __init__(self, *, enabled: bool) -> None:
        """Note whether a ring is wanted; nothing is imported or opened yet."""
        self._lock = threading.Lock()
        self._ring: Optional[Ring] = None
        self._version = ""
        self._reason = "" if enabled else "switched off by the option io_uring"
        """Why there is no ring; empty while that is not known or there is one."""
        _INSTANCES.add(self)

    @property
    def reason(self) -> str:
        """Why there is no ring, or an empty string where one is live. Makes it if need be."""
        with self._lock:
            self._live_ring()
            return self._reason

    def describe(self) -> str:
        """Return ``live (...)`` or ``off: why``. Makes the ring if need be."""
        reason = self.reason
        return f"off: {reason}" if reason else f"live (liburing {self._version})"

    def run(
        self, build: Callable[[Ring], list[Operation]], outcome: Optional[list[Optional[int]]] = None
    ) -> Optional[list[Optional[int]]]:
        """Run the operations that ``build`` makes for the ring.

        Returns: as ``Ring.run``, or None where there is no ring now and nothing was done. Raises: as
            ``Ring.run``, with what there is of results in ``outcome``.
        """
        # Not acquire(blocking=False): an interrupt right after it would leave the lock held.
        if self._reason or self._lock.locked():
            return None
        with self._lock:
            ring = self._live_ring()
            if ring is None:
                return None
            try:
                return ring.run(build(ring), outcome)
            finally:
                if ring.broken:
                    self._switch_off(ring.broken)

    def close(self) -> None:
        """Exit the ring. Later calls find none."""
        with self._lock:
            self._switch_off(self._reason or "closed")

    def after_fork(self) -> None:
        """In the child: drop the parent's ring. The lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        ring, self._ring = self._ring, None
        if ring is not None:
            self._reason = "the process was forked after the ring was made"
            ring.forget()

    def _live_ring(self) -> Optional[Ring]:
        if self._ring is None and not self._reason:
            try:
                self._version, self._ring = _probe()
            except Unusable as refusal:
                self._reason = str(refusal)
        return self._ring

    def _switch_off(self, reason: str) -> None:
        ring, self._ring, self._reason = self._ring, None, reason
        if ring is not None:
            ring.close()


# --- the probe ------------------------------------------------------------------------------


def _probe() -> tuple[str, Ring]:
    """Return the version of the binding and a ring that has done real I/O, or raise Unusable."""
    if not sys.platform.startswith("linux"):
        raise Unusable(f"{sys.platform} has no io_uring")
    _ask_kernel()
    version = binding.safe_version()
    try:
        ring = Ring(binding.load())
    except Exception as error:
        raise Unusable(f"liburing {version} cannot be used: {error!r}") from error
    try:
        _try_out(ring)
    except BaseException as error:
        ring.close()
        if isinstance(error, (OSError, TypeError, ValueError)):
            raise Unusable(f"the trial failed: {error!r}") from error
        raise
    return version, ring


def _ask_kernel() -> None:
    """Set a ring up by the bare system call: the binding would not tell the true errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    descriptor = libc.syscall(ctypes.c_long(_SETUP_SYSCALL), ctypes.c_long(QUEUE_SIZE), parameters)
    if descriptor < 0:
        number = ctypes.get_errno()
        name = errno.errorcode.get(number, str(number))
        raise Unusable(f"io_uring_setup answers {name} ({os.strerror(number)})")
    os.close(descriptor)


def _try_out(ring: Ring) -> None:
    """Write, gather, sync and read back on a file in memory; raise Unusable on any difference."""
    descriptor = os.memfd_create("walrus-fd-probe", os.MFD_CLOEXEC)
    try:
        parts = [memoryview(b"one"), memoryview(b"two"), memoryview(b"three")]
        found = bytearray(11)
        steps = (
            [ring.write(descriptor, 0, parts[:1]), ring.write(descriptor, 3, parts[1:])],
            [ring.sync(descriptor)],
            [ring.read(descriptor, 0, memoryview(found))],
        )
        outcome = [ring.run(step) for step in steps]
    finally:
        os.close(descriptor)
    if outcome != [[3, 8], [0], [11]] or found != b"onetwothree":
        raise Unusable(f"the trial gave {outcome} and {bytes(found)!r}")


# --- fork -----------------------------------------------------------------------------------

_INSTANCES: weakref.WeakSet[Uring] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for instance in list(_INSTANCES):
        instance.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
