# Payloads into frames, what fits and the runs of a batch: a part of ``_hot_c.pyx``, included there, with its
# names and rules.


def as_payload(data):
    """Return the payload as immutable bytes; anything but ``bytes`` is copied.

    Raises: InvalidPayloadError: not a buffer; a str is told to encode itself.
    """
    return _as_payload(data)


cdef bytes _as_payload(object data):
    if PyBytes_CheckExact(data):
        return <bytes> data
    if isinstance(data, str):
        raise InvalidPayloadError(reason="a payload is bytes, not str: encode it first, as in text.encode()")
    try:
        return memoryview(data).tobytes()
    except TypeError:
        kind = type(data).__name__
        raise InvalidPayloadError(reason=f"a payload is a bytes-like object, not {kind}") from None


def measure(payloads):
    """Return (bytes of all payloads, bytes of the longest), or (-1, -1) unless all are exact ``bytes``."""
    cdef Py_ssize_t place, length, total = 0, longest = 0
    cdef PyObject* payload
    if not isinstance(payloads, (list, tuple)):
        raise TypeError(f"a list or tuple, not {type(payloads).__name__}")
    for place in range(len(payloads)):
        payload = PySequence_Fast_GET_ITEM(payloads, place)
        if not PyBytes_CheckExact(<object> payload):
            return -1, -1
        length = PyBytes_GET_SIZE(<object> payload)
        total += length
        longest = max(longest, length)
    return total, longest


def fill(list payloads not None, Py_ssize_t start, Py_ssize_t end, int64_t room_bytes):
    """Find how many payloads of ``[start, end)`` have frames that fit into ``room_bytes`` together.

    Returns: (place behind the last of them, bytes of their frames, bytes of the payloads).
    """
    cdef int64_t size, size_bytes = 0, payload_bytes = 0
    cdef Py_ssize_t length
    _check_position(start)
    end = min(end, PyList_GET_SIZE(payloads))
    while start < end:
        length = len(<bytes?> payloads[start])
        size = <int64_t> walrus_frame_size(<uint64_t> length)
        if size_bytes + size > room_bytes:
            break
        size_bytes += size
        payload_bytes += length
        start += 1
    return start, size_bytes, payload_bytes


def encode_header(
        uint64_t key, int algorithm, payload, uint8_t flags, uint16_t remaining, uint32_t index, uint64_t timestamp):
    """Return the 32 bytes that stand in front of ``payload``."""
    cdef Py_buffer buffer
    cdef uint8_t head[WALRUS_HEADER_SIZE]
    PyObject_GetBuffer(payload, &buffer, PyBUF_SIMPLE)
    try:
        if <uint64_t> buffer.len > WALRUS_LENGTH_MAX:
            raise OverflowError("a frame cannot hold 4 GiB and more")
        walrus_put_header(
            head, key, algorithm, <const uint8_t*> buffer.buf, <uint32_t> buffer.len, flags, remaining, index,
            timestamp)
    finally:
        PyBuffer_Release(&buffer)
    return PyBytes_FromStringAndSize(<const char*> head, WALRUS_HEADER_SIZE)


def encode_batch(
        uint64_t key, int algorithm, payloads, Py_ssize_t start, Py_ssize_t stop, uint32_t index, uint64_t timestamp):
    """Encode entries ``[start, stop)`` of a batch as one run of frames.

    ``index`` is that of the first of them in its block. Entry 0 carries the first-of-batch flag,
    and batch_remaining counts down to the last of ``payloads``, wherever the run stops.

    Returns: buffers whose concatenation is the run. Payloads of GATHER_BYTES_MIN and more are
    among them as they are, not copied.
    """
    cdef Py_ssize_t last = len(payloads) - 1, count = stop - start
    cdef list out = []
    cdef list pieces
    cdef walrus_batch batch
    if start >= stop:
        return out
    if start < 0 or stop > last + 1:
        raise IndexError(f"entries [{start}, {stop}) of a batch of {last + 1}")
    if last - start > 0xFFFF or <uint64_t> index + <uint64_t> count > WALRUS_LENGTH_MAX + 1:
        raise OverflowError("batch_remaining or index has no place in a frame header")
    # A list of our own: it keeps the payloads alive whatever another thread does to the caller's.
    pieces = [_as_payload(payload) for payload in payloads[start:stop]]
    batch.key, batch.algorithm, batch.timestamp = key, algorithm, timestamp
    batch.index, batch.count = index, 0
    batch.lanes = <walrus_lane*> PyMem_Malloc(<size_t> count * (sizeof(walrus_lane) + sizeof(uint8_t*)))
    if batch.lanes == NULL:
        raise MemoryError()
    batch.heads = <uint8_t**> (batch.lanes + count)
    try:
        _encode_runs(&batch, pieces, out, start, last)
    finally:
        PyMem_Free(batch.lanes)
    return out


cdef int _encode_runs(walrus_batch* batch, list pieces, list out, Py_ssize_t start, Py_ssize_t last) except -1:
    """Cut the frames into runs behind every payload that is gathered, and sum all of them at the end."""
    cdef Py_ssize_t place, begin = 0, padding = 0, run_size = 0, length, total = 0
    for place in range(len(pieces)):
        length = PyBytes_GET_SIZE(<bytes> pieces[place])
        if <uint64_t> length > WALRUS_LENGTH_MAX:
            raise OverflowError("a frame cannot hold 4 GiB and more")
        total += length
        if length < GATHER_MIN:
            run_size += <Py_ssize_t> walrus_frame_size(<uint64_t> length)
            continue
        run_size += WALRUS_HEADER_SIZE
        out.append(_run_of(batch, pieces, begin, place + 1, padding, run_size, start, last))
        out.append(pieces[place])
        begin = place + 1
        padding = run_size = -length & (WALRUS_ALIGN - 1)
    if run_size:
        out.append(_run_of(batch, pieces, begin, len(pieces), padding, run_size, start, last))
    if total >= RELEASE_ENCODE_MIN:
        with nogil:
            walrus_sum_batch(batch)
    else:
        walrus_sum_batch(batch)
    return 0


cdef bytes _run_of(
        walrus_batch* batch, list pieces, Py_ssize_t begin, Py_ssize_t finish, Py_ssize_t padding,
        Py_ssize_t run_size, Py_ssize_t start, Py_ssize_t last):
    """Return one run: ``padding`` zero bytes that belong to the frame before, then frames ``[begin, finish)``.

    The payload of the last of them stands apart where it is one to gather.
    """
    cdef bytes run = PyBytes_FromStringAndSize(NULL, run_size)
    cdef uint8_t* target = <uint8_t*> PyBytes_AS_STRING(run)
    cdef bytes payload
    cdef Py_ssize_t place
    memset(target, 0, <size_t> padding)
    target += padding
    for place in range(begin, finish):
        payload = <bytes> pieces[place]
        target = walrus_put_unsummed(
            batch, target, <const uint8_t*> PyBytes_AS_STRING(payload), <uint32_t> PyBytes_GET_SIZE(payload),
            PyBytes_GET_SIZE(payload) >= GATHER_MIN, WALRUS_FIRST if start + place == 0 else 0,
            <uint16_t> (last - start - place))
    return run
