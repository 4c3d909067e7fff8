"""``Ring``: operations on one io_uring, none of them in flight when a call is over.

**Invariants**
* An operation's buffers are referenced by the ring until its completion has been read.
* ``Ring.run`` returns, or raises, only when no operation is in flight.
* A process that did not make the ring never touches its memory.

The binding has traps, which shape this code: its functions hold the GIL, so nothing waits inside
them (poll on the ring's descriptor does not); it reports a failed call with a stale errno, so
progress is read from the queue and not from the exception; its ``peek_batch`` writes past its
argument; a ring whose set-up failed must not be exited.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

QUEUE_SIZE = 256
BUFFERS_MAX = 60
"""Buffers of one gathered write: what the binding's ``iovec`` takes."""
ASYNC_FROM_BYTES = 64 * 1024
"""Operations of this length run on a kernel thread, because the copy inside submit holds the GIL."""

_IOSQE_ASYNC = 16
_FSYNC_DATASYNC = 1
_SUBMIT_TRIES = 400
_SUBMIT_PAUSE_S = 0.002
_POLL_MS = 1000
_FAILURES_MAX = 1000
_NOT_RUN = (-errno.ECANCELED, -errno.EAGAIN)
"""Results that say that nothing was done. Nobody cancels here: under a storm of signals the kernel
fails to start a worker thread, and hands back what waited for it."""


_ABANDONED: list[_Flight] = []
"""Rounds whose end could not be awaited: their memory is never freed."""


class Operation(NamedTuple):
    """One operation that has not been submitted: how to prepare its entry, and what that refers to."""

    prepare: Callable[..., None]
    arguments: tuple[Any, ...]
    flags: int
    keep: Any
    """Whatever owns the memory that ``arguments`` points to."""


class _Flight:
    """Operations of one round, from before they are queued until every completion has been read."""

    def __init__(self, operations: Sequence[Operation], first_token: int) -> None:
        self.operations = operations
        self.first_token = first_token
        self.queued: list[bool] = []
        """One item once the round's entries are in the queue; the kernel may then see all of them."""
        self.results: dict[int, int] = {}
        self.given_up_count = 0
        """Entries at the end of the queue that the kernel would not take."""

    @property
    def is_over(self) -> bool:
        if not (self.queued and self.queued[0]):
            return True
        return len(self.results) + self.given_up_count >= len(self.operations)

    def outcome(self) -> list[Optional[int]]:
        """Results in order; None for an operation that the kernel did not run."""
        found = [self.results.get(self.first_token + number) for number in range(len(self.operations))]
        return [None if result in _NOT_RUN else result for result in found]


class Ring:
    """One io_uring. Callers see to it that one thread at a time is inside ``run`` and ``close``."""

    def __init__(self, api: Any) -> None:
        """Set the ring up.

        Args:
            api: The functions of the binding, as ``binding.load`` returns them.

        Raises: OSError where the kernel refuses; nothing is left open.
        """
        self._api = api
        self._open = False
        self._pid = os.getpid()
        self._flight: Optional[_Flight] = None
        self._next_token = 1
        self._ring = api.io_uring()
        self._completion = api.io_uring_cqe()
        self.broken: Optional[str] = None
        """Why the ring must not be used again."""
        api.io_uring_queue_init(QUEUE_SIZE, self._ring, 0)
        self._open = True
        self._descriptor = int(self._ring.ring_fd)
        # The child of a fork gets no map of the queues, so it cannot submit what the parent queued.
        api.io_uring_ring_dontfork(self._ring)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    # --- operations -----------------------------------------------------------------------

    def write(self, descriptor: int, at_bytes: int, views: Sequence[memoryview]) -> Operation:
        """Return the write of at most ``BUFFERS_MAX`` non-empty byte views, one after the other."""
        flags = _IOSQE_ASYNC if sum(map(len, views)) >= ASYNC_FROM_BYTES else 0
        if len(views) == 1:
            arguments: tuple[Any, ...] = (descriptor, views[0], len(views[0]), at_bytes)
            return Operation(self._api.io_uring_prep_write, arguments, flags, views)
        vector = self._api.iovec(list(views))
        arguments = (descriptor, vector, len(views), at_bytes)
        return Operation(self._api.io_uring_prep_writev, arguments, flags, views)

    def read(self, descriptor: int, at_bytes: int, view: memoryview) -> Operation:
        """Return the read into a non-empty writable byte view."""
        flags = _IOSQE_ASYNC if len(view) >= ASYNC_FROM_BYTES else 0
        return Operation(self._api.io_uring_prep_read, (descriptor, view, len(view), at_bytes), flags, view)

    def sync(self, descriptor: int) -> Operation:
        """Return the fdatasync of a file."""
        return Operation(self._api.io_uring_prep_fsync, (descriptor, _FSYNC_DATASYNC), 0, None)

    # --- running --------------------------------------------------------------------------

    def run(
        self, operations: Sequence[Operation], outcome: Optional[list[Optional[int]]] = None
    ) -> list[Optional[int]]:
        """Run operations side by side and wait for all of them.

        Returns: for each the kernel's result (bytes, or a negative errno), or None where the
            kernel did not run it: then nothing of it happened, and the caller does it by itself.
            Where the ring took nothing, ``broken`` says why. It is ``outcome``, if that is given.
        Raises: only what arrives from outside (KeyboardInterrupt, MemoryError); what was
            submitted has completed, and ``outcome`` has the results.
        """
        outcome = [] if outcome is None else outcome
        for first in range(0, len(operations), QUEUE_SIZE):
            round_of = operations[first : first + QUEUE_SIZE]
            if self.broken:
                outcome.extend([None] * len(round_of))
            else:
                self._run_round(round_of, outcome)
        return outcome

    def _run_round(self, operations: Sequence[Operation], outcome: list[Optional[int]]) -> None:
        self._settle()
        flight = _Flight(operations, self._next_token)
        # Tokens are never used twice: an interrupt may leave a completion of an earlier round
        # in the queue that was counted already.
        self._next_token += len(operations)
        entries = self._api.io_uring_sqe(len(operations))
        for number, operation in enumerate(operations):
            entry = entries[number]
            operation.prepare(entry, *operation.arguments)
            entry.flags = operation.flags
            entry.user_data = flight.first_token + number
        self._flight = flight
        # Twice, so that an interrupt that arrives inside the first settling meets the second.
        try:
            try:
                # One call from C: no signal handler runs between queueing and the note of it.
                flight.queued.extend(map(self._api.io_uring_put_sqe, (self._ring,), (entries,)))
                self._drive(flight)
            finally:
                self._settle()
        finally:
            try:
                self._settle()
            finally:
                # Whatever came: the kernel tells once that a sync has failed.
                outcome.extend(flight.outcome())

    def _settle(self) -> None:
        """Wait until nothing is in flight, whatever arrives meanwhile; raise that afterwards."""
        flight = self._flight
        arrived: Optional[BaseException] = None
        failure_count = 0
        while flight is not None and not flight.is_over and self._is_ours():
            try:
                self._drive(flight)
            except Exception as error:
                # The bound keeps a process without any memory from spinning here for ever. The
                # flight is kept, so even then the kernel meets live buffers only.
                arrived = arrived or error
                failure_count += 1
                if failure_count >= _FAILURES_MAX:
                    self.broken = f"waiting for completions failed: {error!r}"
                    _ABANDONED.append(flight)
                    break
            except BaseException as error:
                arrived = arrived or error
        if flight is not None and flight.is_over:
            self._flight = None
        if arrived is not None:
            raise arrived

    def _drive(self, flight: _Flight) -> None:
        """Submit what is queued and read completions until the flight is over."""
        refused_count = 0
        while not flight.is_over and self._is_ours():
            queued_count = self._api.io_uring_sq_ready(self._ring) - flight.given_up_count
            if queued_count > 0:
                refusal = self._submit()
                if self._api.io_uring_sq_ready(self._ring) - flight.given_up_count < queued_count:
                    refused_count = 0
                elif refused_count < _SUBMIT_TRIES:
                    refused_count += 1
                    time.sleep(_SUBMIT_PAUSE_S)
                else:
                    self.broken = f"io_uring_enter took no submissions: {refusal}"
                    flight.given_up_count = self._api.io_uring_sq_ready(self._ring)
            if not self._reap(flight) and not flight.is_over and self._nothing_queued(flight):
                self._poll.poll(_POLL_MS)

    def _nothing_queued(self, flight: _Flight) -> bool:
        return bool(self._api.io_uring_sq_ready(self._ring) <= flight.given_up_count)

    def _submit(self) -> Optional[OSError]:
        try:
            self._api.io_uring_submit(self._ring)
        except OSError as error:
            # EAGAIN, EBUSY, EINTR: the kernel may have taken some entries all the same. The
            # caller looks at the queue, and tries again within a bound.
            return error
        return None

    def _reap(self, flight: _Flight) -> int:
        """Note every completion that is there; return how many. Doing one twice is harmless."""
        count = 0
        completion = self._completion
        while self._api.io_uring_peek_cqe(self._ring, completion) == 0:
            token = completion.user_data
            if flight.first_token <= token < flight.first_token + len(flight.operations):
                flight.results[token] = completion.res
            self._api.io_uring_cqe_seen(self._ring, completion)
            count += 1
        return count

    # --- end ------------------------------------------------------------------------------

    def _is_ours(self) -> bool:
        return self._open and os.getpid() == self._pid

    def close(self) -> None:
        """Give the ring back to the kernel, in the process that made it."""
        if self._is_ours():
            self._settle()
            if self._flight is None:
                self._open = False
                self._api.io_uring_queue_exit(self._ring)

    def forget(self) -> None:
        """In a child of fork: close the inherited descriptor and touch nothing of the parent's."""
        if self._open and os.getpid() != self._pid:
            self._open = False
            os.close(self._descriptor)

    def __del__(self) -> None:
        # An operation in flight references the ring through its caller, so none is here.
        if getattr(self, "_open", False) and os.getpid() == self._pid:
            self._open = False
            self._api.io_uring_queue_exit(self._ring)
