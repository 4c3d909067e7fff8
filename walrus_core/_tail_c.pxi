# The append path of one block: a part of ``_hot_c.pyx``, included there, with its names and rules.


cdef class Tail:
    """Where the next frame of an unsealed block goes, and the append of one entry there.

    Invariants: ``state`` changes in one step, after the bytes are written. ``claimed`` is raised
    before a write starts, so ``torn`` (claimed beyond the state) tells that a write was
    interrupted and bytes of it may stand behind the last good frame. Staged frames are part of the
    state; they are the last ones, and the next write of any other kind writes them first.

    Threads: the caller holds the topic's lock for ``append``, ``claim``, ``advance`` and
    ``release``; ``state`` may be read, and ``write_staged`` called, at any time.
    """

    def __cinit__(self):
        self._window.held = False
        self._stage = Stage.__new__(Stage)

    def __init__(
            self, *, write, window, int descriptor, uint64_t base, clock, uint64_t key, int algorithm,
            uint64_t first_offset, uint64_t end, uint64_t reserved, state, bint stages=False):
        """Positions are bytes from the start of the block; the block starts at ``base`` of its file.

        ``write(at_bytes_in_block, data)`` is always there; ``window`` (the block's memory) and
        ``descriptor`` (of its file, -1: none) let the tail write by itself, as does ``clock``
        None, which means the system's clock. ``state`` is (at, index, payload_bytes, low, high):
        the end of the frames, their count, and totals. With ``stages`` frames that go past the
        topic's lock are put together in memory, up to STAGE_MAX bytes, until ``write_staged``.
        """
        self._let_go()
        self._set_state(state)
        self._write = write
        self._clock = clock
        self._descriptor = descriptor if WALRUS_HAS_PWRITE else -1
        self._base = base
        self._released = False
        self._stages = stages and self._descriptor >= 0 and window is None
        self.key = key
        self.algorithm = algorithm
        self.first_offset = first_offset
        self.end = end
        self.reserved = reserved
        self.ready = UINT64_MAX
        self.claimed = self._at
        if window is not None:
            PyObject_GetBuffer(window, &self._window.buffer, PyBUF_WRITABLE)
            self._window.held = True
            if <uint64_t> self._window.buffer.len < end:
                raise ValueError(f"a window of {self._window.buffer.len} bytes for a block of {end}")

    def __dealloc__(self):
        if self._window.held:
            PyBuffer_Release(&self._window.buffer)

    @property
    def state(self):
        """(at, index, payload_bytes, low, high): end of the frames, their count, and totals."""
        return self._at, self._index, self._payload_bytes, self._low, self._high

    @property
    def next_offset(self):
        """Offset that the next entry of this block gets."""
        return self.first_offset + self._index

    @property
    def torn(self):
        """True where an interrupted write may have left bytes behind the last good frame."""
        return self.claimed != self._at

    def now(self):
        """Return the time to stamp entries with, in nanoseconds since the epoch."""
        return self._now()

    @cython.always_allow_keywords(False)
    def append(self, data):
        """Write one entry as a batch of its own.

        Returns: its offset, or -1 where it does not fit in the reserved space (nothing changed).

        Raises: InvalidPayloadError, OverflowError (a clock or an index beyond its field): nothing
        changed. OSError, whatever ``write`` or a signal handler raises: the tail is torn.

        Cost: one copy, into the window or the frame that is written, and one system call without a
        window; no copy of ``bytes`` in frames over STAGED_MAX on a descriptor. Frames of 64 KiB
        and more are written without the GIL.
        """
        cdef Py_buffer buffer
        if PyBytes_CheckExact(data):
            return self._append_bytes(<bytes> data)
        try:
            PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        except (TypeError, BufferError):
            # No buffer, which has its own words, or one in pieces.
            return self._append_bytes(_as_payload(data))
        try:
            if <uint64_t> buffer.len <= self._direct_max():
                return self._append(<const uint8_t*> buffer.buf, <uint64_t> buffer.len, False)
        finally:
            PyBuffer_Release(&buffer)
        return self._append_bytes(_as_payload(data))

    def write_staged(self):
        """Write to the file what was staged before the call, and give its memory back.

        Raises: OSError: all of it is staged still, and may be written again.
        """
        self._write_stage()
        self._stage.drop()

    def claim(self, uint64_t end_at):
        """Announce that bytes up to ``end_at`` may be written. Raises: ValueError: frames are staged."""
        if self._stage.used:
            raise ValueError("staged frames are written before others are claimed")
        self.claimed = end_at

    def advance(self, state):
        """Make frames that were written under ``claim`` part of the block, in one step."""
        self._set_state(state)

    def has_room(self, uint64_t size):
        """Say whether frames of ``size`` bytes can be written without anything made ready before."""
        return self._has_space(size)

    def prepare(self, uint64_t start, uint64_t stop):
        """Have the pages of a reserved range that appends will soon reach made ready; does not wait."""
        if self._window.held and start < stop <= <uint64_t> self._window.buffer.len:
            walrus_prepare(<uint8_t*> self._window.buffer.buf + start, <size_t> (stop - start))

    def release(self):
        """Let go of the window and of what is staged; every later append finds no room.

        Raises: BufferError: another thread is writing into the window; nothing changed.
        """
        self._let_go()
        self._released = True

    cdef int _let_go(self) except -1:
        if self._writing:
            raise BufferError("an append is writing into the window")
        if self._window.held:
            self._window.held = False
            PyBuffer_Release(&self._window.buffer)
        return self._stage.drop()

    cdef int _set_state(self, object state) except -1:
        cdef uint64_t at, index, payload_bytes, low, high
        at, index, payload_bytes, low, high = state
        self._at, self._index, self._payload_bytes, self._low, self._high = at, index, payload_bytes, low, high
        return 0

    cdef uint64_t _now(self) except? 0:
        if self._clock is not None:
            return self._clock()
        if WALRUS_HAS_CLOCK:
            return walrus_now_ns()
        import time

        return time.time_ns()

    cdef inline bint _has_room(self, uint64_t length) noexcept:
        return self.claimed == self._at and not self._released and length <= <uint64_t> INT64_MAX \
            and self._has_space(walrus_frame_size(length))

    cdef inline bint _has_space(self, uint64_t size) noexcept:
        cdef uint64_t limit = min(self.reserved, self.end)
        if size < CALL_MIN:
            limit = min(limit, self.ready)
        return self._at <= limit and size <= limit - self._at

    cdef inline bint _is_mapped(self, uint64_t size) noexcept:
        """Say whether ``size`` bytes of frames go into the window: a call copies many pages for less."""
        return self._window.held and (size < CALL_MIN or self._descriptor < 0)

    cdef inline uint64_t _direct_max(self) noexcept:
        """Return the length up to which the GIL is held from here to the copy into the frame."""
        if self._descriptor >= 0:
            return (CALL_MIN - WALRUS_ALIGN if self._window.held else STAGED_MAX) - WALRUS_HEADER_SIZE
        return RELEASE_MIN - WALRUS_HEADER_SIZE - WALRUS_ALIGN

    cdef object _append_bytes(self, bytes payload):
        return self._append(
            <const uint8_t*> PyBytes_AS_STRING(payload), <uint64_t> PyBytes_GET_SIZE(payload), False)

    cdef object _append(self, const uint8_t* payload, uint64_t length, bint is_quick):
        """Append a payload that the caller keeps alive; one of more than _direct_max() cannot change."""
        cdef uint64_t index, size, timestamp
        cdef object offset
        if not is_quick and not self._has_room(length):  # a quick one has been asked for already
            return -1
        timestamp = self._now()
        if self._clock is not None and not self._has_room(length):
            # The clock was Python code, and that has used this tail.
            return -1
        index, size = self._index, walrus_frame_size(length)
        if length > WALRUS_LENGTH_MAX or index > WALRUS_LENGTH_MAX or self.first_offset > UINT64_MAX - index:
            raise OverflowError("length, index or offset has no place in its field")
        self._write_stage()
        # Made before the entry: where there is no memory for the answer nothing has happened.
        offset = self.first_offset + index
        if self._is_mapped(size):
            self._put_in_window(payload, length, timestamp)
        elif self._descriptor >= 0:
            self._put_in_file(payload, length, timestamp, is_quick)
        else:
            self._put_by_call(payload, length, timestamp)
        self._advance(size, 1, length, timestamp)
        return offset

    cdef inline int _advance(
            self, uint64_t size, uint64_t count, uint64_t payload_bytes, uint64_t timestamp) noexcept:
        """Make frames that are written part of the block."""
        self._at += size
        self._index += count
        self._payload_bytes += payload_bytes
        self._low = min(self._low, timestamp)
        self._high = max(self._high, timestamp)
        return 0

    # --- without the topic's lock: the GIL is held all the way, and no Python code runs ---------------

    @property
    def writes_alone(self):
        """True where the tail needs no Python code to write and to tell the time."""
        return self._clock is None and WALRUS_HAS_CLOCK and (
            self._window.held or self._descriptor >= 0)

    cdef object append_quickly(self, bytes payload):
        """Append a payload of less than QUICK_MAX bytes to a tail that ``writes_alone``.

        Returns: its offset, or None where it does not fit or another thread is writing (nothing changed).
        """
        cdef uint64_t length = <uint64_t> PyBytes_GET_SIZE(payload)
        if length >= QUICK_MAX or not self._has_room(length):
            return None
        if self._stages:
            return self._append_staged(payload, length)
        return self._append(<const uint8_t*> PyBytes_AS_STRING(payload), length, True)

    cdef object _append_staged(self, bytes payload, uint64_t length):
        """Append a payload that has room in the block, to be written by the next ``write_staged``.

        Returns: its offset, or None where it has none in the stage (nothing changed).
        """
        cdef uint64_t size = walrus_frame_size(length), timestamp
        cdef uint8_t* target
        cdef object offset
        if (
            self._index > WALRUS_LENGTH_MAX or self.first_offset > UINT64_MAX - self._index
            or self._base > <uint64_t> INT64_MAX - (self._at + size)
        ):
            return None
        target = self._stage.room(<size_t> size)
        if target == NULL:
            return None
        timestamp = walrus_now_ns()
        offset = self.first_offset + self._index
        walrus_put_frame(
            target, self.key, self.algorithm, <const uint8_t*> PyBytes_AS_STRING(payload), length,
            <uint32_t> self._index, timestamp)
        self._stage.used += <size_t> size
        self.claimed = self._at + size
        self._advance(size, 1, length, timestamp)
        return offset

    cdef int _write_stage(self) except -1:
        """Write what is staged, in one step for every other thread. Raises: as ``write_staged``."""
        if self._stage.used:
            self._stage.write(self._descriptor, self._base + self._at)
        return 0

    def append_batch(self, list payloads not None):
        """Append payloads, all exact ``bytes`` and at least one, as one batch.

        Returns: the range of their offsets, or None where the tail does not write such a batch alone or
        they do not fit (nothing changed). Raises: OSError: the tail is torn.
        """
        if not payloads or not self.writes_alone:
            return None
        return self.append_batch_quickly(payloads, PyList_GET_SIZE(payloads))

    cdef object append_batch_quickly(self, object batch, Py_ssize_t count):
        """Append the payloads of a list or tuple, all exact ``bytes``, as one batch.

        Returns: the range of their offsets, or None where they are not such, too many or too long, or
        do not fit (nothing changed).
        """
        cdef Py_ssize_t place
        cdef uint64_t length, timestamp, size = 0, payload_bytes = 0
        cdef PyObject* payload
        cdef object offsets
        for place in range(count):
            payload = PySequence_Fast_GET_ITEM(batch, place)
            if not PyBytes_CheckExact(<object> payload):
                return None
            length = <uint64_t> PyBytes_GET_SIZE(<object> payload)
            payload_bytes += length
            size += walrus_frame_size(length)
            if size > QUICK_BATCH_MAX:
                return None
        if not self._has_room(size - WALRUS_HEADER_SIZE):
            return None
        if self._index > WALRUS_LENGTH_MAX - <uint64_t> count or self.first_offset > UINT64_MAX - self._index - count:
            return None
        self._write_stage()
        timestamp = walrus_now_ns()
        offsets = range(self.first_offset + self._index, self.first_offset + self._index + count)
        self._put_batch(batch, count, size, timestamp)
        self._advance(size, <uint64_t> count, payload_bytes, timestamp)
        return offsets

    cdef int _put_batch(self, object batch, Py_ssize_t count, uint64_t size, uint64_t timestamp) except -1:
        """Encode a batch in one run, in the window or in the scratch memory, and write it from there."""
        cdef walrus_batch frames
        cdef size_t lanes_size = <size_t> count * (sizeof(walrus_lane) + sizeof(uint8_t*))
        cdef uint8_t* target
        cdef Py_ssize_t place
        cdef PyObject* payload
        cdef bint is_mapped = self._is_mapped(size)
        _make_scratch(lanes_size + (0 if is_mapped else <size_t> size))
        frames.key, frames.algorithm, frames.timestamp = self.key, self.algorithm, timestamp
        frames.index, frames.count = <uint32_t> self._index, 0
        frames.lanes = <walrus_lane*> _scratch
        frames.heads = <uint8_t**> (frames.lanes + count)
        target = _scratch + lanes_size
        if is_mapped:
            if self._at > <uint64_t> self._window.buffer.len or size > <uint64_t> self._window.buffer.len - self._at:
                raise ValueError("the window ends before the reserved space does")
            target = <uint8_t*> self._window.buffer.buf + self._at
        elif self._base > <uint64_t> INT64_MAX - (self._at + size):
            raise OverflowError("a file has no such position")
        self.claimed = self._at + size
        for place in range(count):
            payload = PySequence_Fast_GET_ITEM(batch, place)
            target = walrus_put_unsummed(
                &frames, target, <const uint8_t*> PyBytes_AS_STRING(<object> payload),
                <uint32_t> PyBytes_GET_SIZE(<object> payload), False, WALRUS_FIRST if place == 0 else 0,
                <uint16_t> (count - 1 - place))
        walrus_sum_batch(&frames)
        if not is_mapped:
            _write_all(
                self._descriptor, _scratch + lanes_size, <size_t> size, NULL, 0, 0, self._base + self._at, True)
        return 0

    cdef int _put_in_window(self, const uint8_t* payload, uint64_t length, uint64_t timestamp) except -1:
        cdef uint64_t at = self._at, size = walrus_frame_size(length), key = self.key
        cdef uint32_t index = <uint32_t> self._index
        cdef int algorithm = self.algorithm
        cdef uint64_t window_size = <uint64_t> self._window.buffer.len
        cdef uint8_t* target
        if at > window_size or size > window_size - at:
            raise ValueError("the window ends before the reserved space does")
        target = <uint8_t*> self._window.buffer.buf + at
        self.claimed = at + size
        if size >= RELEASE_MIN:
            self._writing = True
            with nogil:
                walrus_put_frame(target, key, algorithm, payload, length, index, timestamp)
            self._writing = False
        else:
            walrus_put_frame(target, key, algorithm, payload, length, index, timestamp)
        return 0

    cdef int _put_in_file(
            self, const uint8_t* payload, uint64_t length, uint64_t timestamp, bint is_quick) except -1:
        cdef uint8_t staged[STAGED_MAX]
        cdef uint64_t at = self._at, size = walrus_frame_size(length), key = self.key
        cdef uint32_t index = <uint32_t> self._index
        cdef int algorithm = self.algorithm
        if at + size > <uint64_t> INT64_MAX or self._base > <uint64_t> INT64_MAX - (at + size):
            raise OverflowError("a file has no such position")
        self.claimed = at + size
        if size <= STAGED_MAX:
            walrus_put_frame(staged, key, algorithm, payload, length, index, timestamp)
            _write_all(self._descriptor, staged, <size_t> size, NULL, 0, 0, self._base + at, is_quick)
            return 0
        if size >= RELEASE_MIN:
            with nogil:
                walrus_put_header(staged, key, algorithm, payload, length, WALRUS_FIRST, 0, index, timestamp)
        else:
            walrus_put_header(staged, key, algorithm, payload, length, WALRUS_FIRST, 0, index, timestamp)
        _write_all(
            self._descriptor, staged, WALRUS_HEADER_SIZE, payload, <size_t> length,
            <size_t> (size - WALRUS_HEADER_SIZE - length), self._base + at, is_quick)
        return 0

    cdef int _put_by_call(self, const uint8_t* payload, uint64_t length, uint64_t timestamp) except -1:
        cdef uint64_t at = self._at, size = walrus_frame_size(length), key = self.key
        cdef uint32_t index = <uint32_t> self._index
        cdef int algorithm = self.algorithm
        cdef bytes frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> size)
        cdef uint8_t* target = <uint8_t*> PyBytes_AS_STRING(frame)
        self.claimed = at + size
        if size >= RELEASE_MIN:
            with nogil:
                walrus_put_frame(target, key, algorithm, payload, length, index, timestamp)
        else:
            walrus_put_frame(target, key, algorithm, payload, length, index, timestamp)
        self._write(at, frame)
        return 0
