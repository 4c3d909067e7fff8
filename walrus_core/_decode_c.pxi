# Decoding, verifying and finding frames: a part of ``_hot_c.pyx``, included there, with its names and rules.


cdef void _set_up(walrus_reader* reader, const Py_buffer* buffer, uint64_t key, int algorithm) noexcept:
    memset(reader, 0, sizeof(walrus_reader))
    reader.data = <const uint8_t*> buffer.buf
    reader.size = buffer.len
    reader.key = key
    reader.algorithm = algorithm
    reader.budget = INT64_MAX


def peek_header(view, int64_t at, uint64_t key):
    """Return (length_bytes, index, batch_remaining) of the sound header at ``at``, or None."""
    cdef Py_buffer buffer
    cdef walrus_frame frame
    cdef bint found = False
    _check_position(at)
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    if buffer.len - at >= WALRUS_HEADER_SIZE:
        found = walrus_parse(<const uint8_t*> buffer.buf + at, key, &frame)
    PyBuffer_Release(&buffer)
    if not found:
        return None
    return frame.length, frame.index, frame.remaining


def decode(
        view, int64_t at, uint64_t key, int algorithm, uint64_t first_offset, int64_t index, limit_index, max_bytes,
        max_entries):
    """Decode frames ``[index, limit_index)`` of one block, whose first stands at ``at``.

    Stops before the entry with which the payload sum would exceed ``max_bytes`` (the first entry
    is always taken) and after ``max_entries``.

    Returns: (entries, at, index, status, need): place and index of the next frame, one of DONE,
    SHORT, BAD_HEADER, BAD_PAYLOAD for what stands there, and for SHORT the bytes needed from ``at``.
    """
    cdef Py_buffer buffer
    cdef walrus_reader reader
    cdef int64_t limit = _clamped(limit_index)
    cdef int64_t budget = _clamped(max_bytes)
    cdef int64_t count_max = _clamped(max_entries)
    cdef list entries = []
    _check_position(at)
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        _set_up(&reader, &buffer, key, algorithm)
        reader.at, reader.index, reader.limit_index = at, index, limit
        reader.budget = max(budget, -1)
        if PyBytes_CheckExact(view):
            _decode_there(&reader, entries, first_offset, count_max)
        else:
            _decode_copies(&reader, entries, first_offset, count_max)
    finally:
        PyBuffer_Release(&buffer)
    return entries, reader.at, reader.index, reader.status, reader.need


cdef int _decode_there(walrus_reader* reader, list entries, uint64_t first_offset, int64_t count_max) except -1:
    """Fill ``entries`` group by group from memory that cannot change: verified first, then copied out."""
    cdef walrus_frame frames[WALRUS_GROUP]
    cdef walrus_head heads[WALRUS_GROUP]
    cdef walrus_lane lanes[WALRUS_GROUP]
    cdef int count, place, sound
    cdef int64_t before
    while reader.taken < count_max:
        before = reader.total
        count = walrus_gather(reader, frames, heads, count_max - reader.taken)
        if reader.total - before >= RELEASE_DECODE_MIN:
            with nogil:
                sound = walrus_verify_there(reader, frames, lanes, count)
        else:
            sound = walrus_verify_there(reader, frames, lanes, count)
        for place in range(sound):
            _copy_out(reader, &frames[place], &lanes[place], entries, first_offset)
        if reader.status != WALRUS_GOES_ON:
            return 0
    walrus_stop(reader, WALRUS_DONE, 0)
    return 0


cdef int _decode_copies(walrus_reader* reader, list entries, uint64_t first_offset, int64_t count_max) except -1:
    """Fill ``entries`` group by group; a group is copied out first and verified as it was copied."""
    cdef walrus_frame frames[WALRUS_GROUP]
    cdef walrus_head heads[WALRUS_GROUP]
    cdef walrus_lane lanes[WALRUS_GROUP]
    cdef int count, place, sound
    cdef int64_t before
    while reader.taken < count_max:
        before = reader.total
        count = walrus_gather(reader, frames, heads, count_max - reader.taken)
        for place in range(count):
            _copy_out(reader, &frames[place], &lanes[place], entries, first_offset)
        if reader.total - before >= RELEASE_DECODE_MIN:
            with nogil:
                sound = walrus_verify_copies(reader, frames, heads, lanes, count)
        else:
            sound = walrus_verify_copies(reader, frames, heads, lanes, count)
        if sound < count:
            del entries[len(entries) - (count - sound):]
        if reader.status != WALRUS_GOES_ON:
            return 0
    walrus_stop(reader, WALRUS_DONE, 0)
    return 0


cdef int _copy_out(
        walrus_reader* reader, const walrus_frame* frame, walrus_lane* lane, list entries,
        uint64_t first_offset) except -1:
    """Make the entry of a frame and the lane over its own copy of the bytes."""
    cdef bytes data = PyBytes_FromStringAndSize(
        <const char*> reader.data + frame.at + WALRUS_HEADER_SIZE, <Py_ssize_t> frame.length)
    if first_offset > UINT64_MAX - frame.index:
        raise OverflowError("an offset has no place in 64 bits")
    entries.append(_entry(first_offset + frame.index, frame.timestamp, data))
    lane.data = <const uint8_t*> PyBytes_AS_STRING(data)
    lane.length = frame.length
    return 0


def decode_file(
        int descriptor, uint64_t position, int64_t size, uint64_t key, int algorithm, uint64_t first_offset,
        int64_t index, limit_index, max_bytes, max_entries):
    """Read and decode frames ``[index, limit_index)`` that stand in ``size`` bytes of a file at ``position``.

    Each payload is read into its entry, not copied there: for large ones. Otherwise as ``decode``, with
    ``at`` from ``position``. Raises: OSError. Cost: one system call a frame, without the GIL.
    """
    cdef walrus_reader reader
    cdef int64_t limit = _clamped(limit_index)
    cdef int64_t budget = _clamped(max_bytes)
    cdef int64_t count_max = _clamped(max_entries)
    cdef list entries = []
    _check_position(size)
    if position > <uint64_t> (INT64_MAX - size):
        raise OverflowError("a file has no such position")
    memset(&reader, 0, sizeof(walrus_reader))
    reader.size, reader.key, reader.algorithm = size, key, algorithm
    reader.index, reader.limit_index, reader.budget = index, limit, max(budget, -1)
    _grow_heap()
    _decode_file(&reader, entries, first_offset, count_max, descriptor, position)
    return entries, reader.at, reader.index, reader.status, reader.need


cdef bint _heap_grown = False


cdef int _grow_heap() except -1:
    """Have the C library keep a few MiB of freed memory, once in a process.

    glibc gives freed memory above a threshold back at once, 128 KiB at first, and raises the threshold to
    twice the largest block that was ever freed. Below it every batch of large payloads is made of new
    pages, whose faults take longer than all else.
    """
    global _heap_grown
    cdef void* block
    if not _heap_grown:
        _heap_grown = True
        block = PyMem_RawMalloc(HEAP_KEPT // 2)
        if block == NULL:
            raise MemoryError()
        PyMem_RawFree(block)
    return 0


cdef int _decode_file(
        walrus_reader* reader, list entries, uint64_t first_offset, int64_t count_max, int descriptor,
        uint64_t position) except -1:
    cdef walrus_frame frame
    cdef uint8_t behind[WALRUS_HEADER_SIZE + WALRUS_ALIGN]
    cdef uint8_t* head = behind
    cdef size_t length, padding, more
    cdef bytes data
    cdef int error = -1
    while reader.index < reader.limit_index and reader.taken < count_max:
        if reader.size - reader.at < WALRUS_HEADER_SIZE:
            walrus_stop(reader, WALRUS_SHORT, WALRUS_HEADER_SIZE)
            return 0
        if error < 0:
            error = walrus_read_at(descriptor, head, WALRUS_HEADER_SIZE, NULL, 0, position)
            if error:
                _raise_errno(error)
        frame.at = reader.at
        if not walrus_parse(head, reader.key, &frame) or <int64_t> frame.index != reader.index:
            walrus_stop(reader, WALRUS_BAD_HEADER, 0)
            return 0
        if not walrus_take(reader, &frame):
            return 0
        length = frame.length
        padding = <size_t> walrus_frame_size(length) - WALRUS_HEADER_SIZE - length
        # The header of the next frame comes along with this payload; this frame's own is still needed.
        more = padding + (WALRUS_HEADER_SIZE if reader.size - reader.at >= WALRUS_HEADER_SIZE else 0)
        data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t> length)
        error = _read_payload(reader, &frame, &head, behind, data, more, padding, descriptor, position)
        if error:
            _raise_errno(error)
        if reader.status == WALRUS_BAD_PAYLOAD:
            return 0
        if first_offset > UINT64_MAX - frame.index:
            raise OverflowError("an offset has no place in 64 bits")
        entries.append(_entry(first_offset + frame.index, frame.timestamp, data))
    walrus_stop(reader, WALRUS_DONE, 0)
    return 0


cdef int _read_payload(
        walrus_reader* reader, const walrus_frame* frame, uint8_t** head, uint8_t* behind, bytes data, size_t more,
        size_t padding, int descriptor, uint64_t position):
    """Read and verify the payload of a frame, and what stands behind it. Returns: 0 or an errno."""
    cdef uint8_t own[WALRUS_HEADER_SIZE]
    cdef uint8_t* target = <uint8_t*> PyBytes_AS_STRING(data)
    cdef int error
    memcpy(own, head[0], WALRUS_HEADER_SIZE)
    with nogil:
        error = walrus_read_at(
            descriptor, target, frame.length, behind, more, position + <uint64_t> frame.at + WALRUS_HEADER_SIZE)
        if not error:
            walrus_stop(reader, WALRUS_GOES_ON, 0)
            walrus_verify_apart(reader, frame, own, target)
    head[0] = behind + padding
    return error


cdef int _raise_errno(int number) except -1:
    walrus_set_errno(number)
    PyErr_SetFromErrno(OSError)
    return 0


def verify(bytes run not None, int64_t at, uint64_t key, int algorithm, int64_t index, limit_index):
    """Verify frames ``[index, limit_index)`` of one block, whose first stands at ``at``.

    Returns: (at, index, status, need) as in ``decode``.
    """
    cdef walrus_reader reader
    cdef walrus_frame frames[WALRUS_GROUP]
    cdef walrus_head heads[WALRUS_GROUP]
    cdef walrus_lane lanes[WALRUS_GROUP]
    cdef int64_t limit = _clamped(limit_index)
    _check_position(at)
    memset(&reader, 0, sizeof(walrus_reader))
    reader.data, reader.size = <const uint8_t*> PyBytes_AS_STRING(run), PyBytes_GET_SIZE(run)
    reader.key, reader.algorithm, reader.budget = key, algorithm, INT64_MAX
    reader.at, reader.index, reader.limit_index = at, index, limit
    reader.status = WALRUS_GOES_ON
    if reader.size - at >= RELEASE_DECODE_MIN:
        with nogil:
            _verify(&reader, frames, heads, lanes)
    else:
        _verify(&reader, frames, heads, lanes)
    return reader.at, reader.index, reader.status, reader.need


cdef void _verify(
        walrus_reader* reader, walrus_frame* frames, walrus_head* heads, walrus_lane* lanes) noexcept nogil:
    cdef int count
    while reader.status == WALRUS_GOES_ON:
        count = walrus_gather(reader, frames, heads, WALRUS_GROUP)
        walrus_verify_there(reader, frames, lanes, count)


def entry_in(bytes run not None, Py_ssize_t at, uint64_t offset):
    """Return the entry of the verified frame at ``at`` of a run, or None where no frame fits there."""
    return _entry_in(run, at, offset)


cdef Entry _entry_in(bytes run, Py_ssize_t at, uint64_t offset):
    """Return the entry of the verified frame at ``at`` of a run, or None where no frame fits there."""
    cdef const uint8_t* head
    cdef uint64_t size, length
    if at < 0 or at > PyBytes_GET_SIZE(run) - WALRUS_HEADER_SIZE:
        return None
    head = <const uint8_t*> PyBytes_AS_STRING(run) + at
    size = <uint64_t> (PyBytes_GET_SIZE(run) - at)
    length = <uint64_t> walrus_length_of(head)
    if walrus_frame_size(length) > size:
        return None
    return _entry(offset, walrus_timestamp_of(head), PyBytes_FromStringAndSize(
        <const char*> head + WALRUS_HEADER_SIZE, <Py_ssize_t> length))


def payload_bytes(list entries not None):
    """Return the payload bytes of all entries together."""
    cdef Py_ssize_t total = 0
    for entry in entries:
        if type(entry) is not Entry:
            raise TypeError(f"not an entry: {entry!r}")
        total += PyBytes_GET_SIZE((<Entry> entry).data)
    return total


def seek(view, int64_t at, uint64_t key, int64_t index, target_index):
    """Step from frame ``index`` at ``at`` towards ``target_index`` by headers alone.

    Returns: (at, index, status, need) as in ``decode``; DONE means that ``target_index`` was reached.
    """
    cdef Py_buffer buffer
    cdef walrus_reader reader
    cdef int64_t target = _clamped(target_index)
    _check_position(at)
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    _set_up(&reader, &buffer, key, WALRUS_FNV1A64)
    reader.at, reader.index, reader.limit_index = at, index, target
    walrus_seek(&reader)
    PyBuffer_Release(&buffer)
    return reader.at, reader.index, reader.status, reader.need


def find_frame(view, int64_t at, uint64_t key, index_min, index_end):
    """Search forward in steps of 8 bytes for a sound header with index in ``[index_min, index_end)``.

    Returns: (at, index) of the first, or (-1, -1). Cost: one check per non-zero step.
    """
    cdef Py_buffer buffer
    cdef walrus_reader reader
    cdef walrus_frame frame
    cdef int64_t first = _clamped(index_min)
    cdef int64_t end = _clamped(index_end)
    cdef bint found
    _check_position(at)
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    _set_up(&reader, &buffer, key, WALRUS_FNV1A64)
    reader.at, reader.limit_index = at, end
    if buffer.len >= RELEASE_MIN:
        with nogil:
            found = walrus_find(&reader, first, &frame)
    else:
        found = walrus_find(&reader, first, &frame)
    PyBuffer_Release(&buffer)
    if not found:
        return -1, -1
    return reader.at, frame.index


def walk(view, int64_t at, uint64_t key, int algorithm, int64_t index, int64_t remaining, limit_index):
    """Verify frames from ``at`` until the first that is not the continuation.

    ``remaining`` is how many entries of a begun batch must still come (0: a new batch starts).
    Stops at ``limit_index``, at the end of the buffer, at anything unsound, and where a frame
    does not fit the batch it stands in.

    Returns: (at, index, remaining, payload_bytes, low, high, status, need): the place behind the
    last sound frame, and totals of the frames walked (timestamps low 2**64 - 1 and high 0 for none).
    """
    cdef Py_buffer buffer
    cdef walrus_reader reader
    cdef walrus_totals totals
    cdef int64_t limit = _clamped(limit_index)
    _check_position(at)
    totals.remaining, totals.payload_bytes, totals.low, totals.high = remaining, 0, UINT64_MAX, 0
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    _set_up(&reader, &buffer, key, algorithm)
    reader.at, reader.index, reader.limit_index = at, index, limit
    reader.batches = True
    reader.remaining = max(remaining, -1)
    if buffer.len >= RELEASE_MIN:
        with nogil:
            walrus_walk(&reader, &totals)
    else:
        walrus_walk(&reader, &totals)
    PyBuffer_Release(&buffer)
    return (
        reader.at, reader.index, totals.remaining, totals.payload_bytes, totals.low, totals.high, reader.status,
        reader.need)


def is_zero(view):
    """True where every byte is zero."""
    cdef Py_buffer buffer
    cdef bint zero
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    if buffer.len >= RELEASE_MIN:
        with nogil:
            zero = walrus_is_zero(<const uint8_t*> buffer.buf, <size_t> buffer.len)
    else:
        zero = walrus_is_zero(<const uint8_t*> buffer.buf, <size_t> buffer.len)
    PyBuffer_Release(&buffer)
    return zero
