# cython: language_level=3
# cython: binding=False
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""Frames, compiled: the twin of ``_hot_py.py``, with the same names, arguments, results and errors.

Read the pure twin first, in the folder ``_pure``; it says what every function means. What is added
here is how: ``_frame.h`` does the work on C memory, several frames side by side, with the checksums
of ``_checksum.h``; this module turns objects and buffers into that; and ``Tail`` writes by itself,
into a memory window or on a descriptor (``_system.h``).

Where the two differ: a number that has no place in its field is an OverflowError here and a
struct.error there; a negative position is a ValueError; an Entry holds exact ``bytes`` and
unsigned 64-bit numbers; ``Tail`` refuses a window that is shorter than its block, and lets
``state`` be changed by ``advance`` alone.

Invariants: nothing outside a given buffer is read or written; every length is 64 bits wide in
arithmetic; no Python code can run between the reading of a Tail's fields and their change, other
than a signal handler in an interrupted write, which the tail meets as torn.

Threads: the GIL protects all state. It is released around long loops over memory that a buffer
export or a reference keeps alive, and around large writes.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.list cimport PyList_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.errno cimport EINTR, EIO
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from walrus_core import format as _format
from walrus_core.errors import InvalidPayloadError


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    PyObject* PySequence_Fast_GET_ITEM(object sequence, Py_ssize_t place)


cdef extern from "_frame.h" nogil:
    const uint64_t WALRUS_FNV_BASIS, WALRUS_FNV_PRIME, WALRUS_LENGTH_MAX
    enum:
        WALRUS_HEADER_SIZE, WALRUS_ALIGN, WALRUS_KIND, WALRUS_FIRST, WALRUS_FNV1A64, WALRUS_GROUP
        WALRUS_DONE, WALRUS_SHORT, WALRUS_BAD_HEADER, WALRUS_BAD_PAYLOAD, WALRUS_GOES_ON

    ctypedef struct walrus_head:
        pass
    ctypedef struct walrus_lane:
        const uint8_t* data
        size_t length
        uint64_t state
    ctypedef struct walrus_batch:
        uint64_t key, timestamp
        int algorithm
        uint32_t index
        size_t count
        walrus_lane* lanes
        uint8_t** heads
    ctypedef struct walrus_frame:
        int64_t at
        uint64_t timestamp
        uint32_t length, index
        uint16_t remaining
    ctypedef struct walrus_reader:
        const uint8_t* data
        uint64_t key, need
        int algorithm, batches, status
        int64_t size, at, index, limit_index, budget, taken, total, remaining
    ctypedef struct walrus_totals:
        int64_t remaining
        uint64_t payload_bytes, low, high

    void walrus_checksum_setup()
    int walrus_checksum_choose(int tier)
    void walrus_store64(uint8_t* target, uint64_t value)
    uint64_t walrus_mix64(uint64_t value)
    bint walrus_is_zero(const uint8_t* data, size_t length)
    uint64_t walrus_fnv(const uint8_t* data, size_t length, uint64_t state)
    uint32_t walrus_crc32c(const uint8_t* data, size_t length, uint32_t state)
    uint32_t walrus_check(uint64_t key, uint32_t length, uint32_t word, uint32_t index, uint64_t timestamp)
    uint64_t walrus_frame_size(uint64_t length)
    void walrus_put_header(
        uint8_t* head, uint64_t key, int algorithm, const uint8_t* payload, uint32_t length, uint8_t flags,
        uint16_t remaining, uint32_t index, uint64_t timestamp)
    void walrus_put_frame(
        uint8_t* target, uint64_t key, int algorithm, const uint8_t* payload, uint32_t length, uint32_t index,
        uint64_t timestamp)
    uint8_t* walrus_put_unsummed(
        walrus_batch* batch, uint8_t* target, const uint8_t* payload, uint32_t length, bint apart, uint8_t flags,
        uint16_t remaining)
    void walrus_sum_batch(walrus_batch* batch)
    bint walrus_parse(const uint8_t* head, uint64_t key, walrus_frame* frame)
    bint walrus_stop(walrus_reader* reader, int status, uint64_t need)
    int walrus_gather(walrus_reader* reader, walrus_frame* frames, walrus_head* heads, int64_t room)
    int walrus_verify_copies(
        walrus_reader* reader, const walrus_frame* frames, const walrus_head* heads, walrus_lane* lanes, int count)
    void walrus_seek(walrus_reader* reader)
    bint walrus_find(walrus_reader* reader, int64_t index_min, walrus_frame* frame)
    void walrus_walk(walrus_reader* reader, walrus_totals* totals)


cdef extern from "_system.h" nogil:
    const bint WALRUS_HAS_PWRITE
    const bint WALRUS_HAS_CLOCK
    uint64_t walrus_now_ns()
    void walrus_set_errno(int number)
    int64_t walrus_write_frame_at(
        int descriptor, const uint8_t* head, size_t head_size, const uint8_t* payload, size_t length,
        size_t padding, size_t done, uint64_t position)


cdef extern from "_prepare.h" nogil:
    void walrus_prepare(const void* start, size_t length)


cdef enum:
    GATHER_MIN = 64 * 1024
    RELEASE_MIN = 64 * 1024         # bytes from which a loop or a write runs without the GIL,
    RELEASE_DECODE_MIN = 256 * 1024     # for entries that are made of them
    RELEASE_ENCODE_MIN = 1024 * 1024    # and for runs of frames
    STAGED_MAX = 4096               # frames up to this size are put together on the stack
    QUICK_MAX = 64 * 1024 - 64      # payloads below it are written with the GIL held,
    QUICK_BATCH_MAX = 1024 * 1024   # and batches of up to so many bytes of frames

if (
    _format.FRAME_HEADER_SIZE, _format.FRAME_ALIGN, _format.KIND_ENTRY, _format.FLAG_FIRST,
    _format.CHECKSUM_FNV1A64, _format.FRAME_STRUCT,
) != (WALRUS_HEADER_SIZE, WALRUS_ALIGN, WALRUS_KIND, WALRUS_FIRST, WALRUS_FNV1A64, "<QIIBBHIQ"):
    raise ImportError("walrus_core._hot_c was built for another disk format: rebuild it")

walrus_checksum_setup()

COMPILED = True

FNV_BASIS = WALRUS_FNV_BASIS
FNV_PRIME = WALRUS_FNV_PRIME

DONE = WALRUS_DONE
SHORT = WALRUS_SHORT
BAD_HEADER = WALRUS_BAD_HEADER
BAD_PAYLOAD = WALRUS_BAD_PAYLOAD

GATHER_BYTES_MIN = GATHER_MIN


@cython.freelist(256)
@cython.no_gc
cdef class Entry:
    """One entry as a reader gets it: immutable, owns its bytes.

    ``offset`` is its place in the topic, ``timestamp`` the nanoseconds since the epoch at which
    it was appended (informative, orders nothing), ``data`` the payload.
    """

    def __init__(self, uint64_t offset, uint64_t timestamp, bytes data not None):
        self.offset = offset
        self.timestamp = timestamp
        self.data = data

    def __eq__(self, other):
        if not isinstance(other, Entry):
            return NotImplemented
        cdef Entry that = <Entry> other
        return self.offset == that.offset and self.timestamp == that.timestamp and self.data == that.data

    def __hash__(self):
        return hash((self.offset, self.timestamp, self.data))

    def __repr__(self):
        return f"Entry(offset={self.offset}, timestamp={self.timestamp}, data={self.data!r})"

    def __reduce__(self):
        # By way of hot.py, so that what one twin pickled the other can load.
        from walrus_core.hot import make_entry

        return make_entry, (self.offset, self.timestamp, self.data)


cdef inline Entry _entry(uint64_t offset, uint64_t timestamp, bytes data):
    cdef Entry entry = Entry.__new__(Entry)
    entry.offset = offset
    entry.timestamp = timestamp
    entry.data = data
    return entry


# --- numbers --------------------------------------------------------------------------------


cdef int64_t _clamped(object value) except? -1:
    """Return a limit as 64 bits; what lies beyond them is as good as endless."""
    cdef int overflow = 0
    cdef int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        return INT64_MAX if overflow > 0 else INT64_MIN
    return number


cdef int _check_position(int64_t at) except -1:
    if at < 0:
        raise ValueError(f"a position is not negative: {at}")
    return 0


# --- checksums ------------------------------------------------------------------------------


def fnv1a64(data, uint64_t state=0xCBF29CE484222325):
    """Return FNV-1a 64 of ``data``, continued from ``state`` (draft-eastlake-fnv)."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        if buffer.len >= RELEASE_MIN:
            with nogil:
                state = walrus_fnv(<const uint8_t*> buffer.buf, <size_t> buffer.len, state)
        else:
            state = walrus_fnv(<const uint8_t*> buffer.buf, <size_t> buffer.len, state)
    finally:
        PyBuffer_Release(&buffer)
    return state


def crc32c(data, uint32_t state=0):
    """Return CRC-32C (Castagnoli, RFC 3720 B.4) of ``data``, continued from the CRC ``state``."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        if buffer.len >= RELEASE_MIN:
            with nogil:
                state = walrus_crc32c(<const uint8_t*> buffer.buf, <size_t> buffer.len, state)
        else:
            state = walrus_crc32c(<const uint8_t*> buffer.buf, <size_t> buffer.len, state)
    finally:
        PyBuffer_Release(&buffer)
    return state


def _use_kernels(int tier):
    """Compute checksums as older processors do: 0 plainly, 1 with AVX2 or a CRC instruction, 3 with all.

    For tests and measurements. Returns: the tier in use, as high as this processor allows.
    """
    return walrus_checksum_choose(tier)


def mix64(uint64_t value):
    """Return a bijective mix of 64 bits (the finaliser of SplitMix64; Steele, Lea, Flood 2014)."""
    return walrus_mix64(value)


def block_key(uint64_t salt, uint64_t block_sequence):
    """Return the 64-bit key of all frames of a block: FNV-1a 64 of salt and sequence."""
    cdef uint8_t packed[16]
    walrus_store64(packed, salt)
    walrus_store64(packed + 8, block_sequence)
    return walrus_fnv(packed, 16, WALRUS_FNV_BASIS)


def header_check(uint64_t key, uint32_t length, uint32_t word, uint32_t index, uint64_t timestamp):
    """Return the 32-bit check of a frame header.

    ``word`` is the little-endian u32 of kind, flags and batch_remaining (bytes 16 to 19).
    """
    return walrus_check(key, length, word, index, timestamp)


def frame_size(uint64_t length_bytes):
    """Return the bytes that a payload of ``length_bytes`` takes on disk: header, payload, padding."""
    if length_bytes > <uint64_t> INT64_MAX:
        raise OverflowError("a payload cannot have this length")
    return walrus_frame_size(length_bytes)


# --- encode ---------------------------------------------------------------------------------


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


# --- decode ---------------------------------------------------------------------------------


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
        _decode(&reader, entries, first_offset, count_max)
    finally:
        PyBuffer_Release(&buffer)
    return entries, reader.at, reader.index, reader.status, reader.need


cdef int _decode(walrus_reader* reader, list entries, uint64_t first_offset, int64_t count_max) except -1:
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


# --- the append path of one block -------------------------------------------------------------


cdef uint8_t* _scratch = NULL
cdef size_t _scratch_size = 0


cdef int _make_scratch(size_t size) except -1:
    """Make the scratch memory of the process hold ``size`` bytes; used with the GIL held all along."""
    global _scratch, _scratch_size
    if size <= _scratch_size:
        return 0
    PyMem_Free(_scratch)
    _scratch_size = 0
    _scratch = <uint8_t*> PyMem_Malloc(size)
    if _scratch == NULL:
        raise MemoryError()
    _scratch_size = size
    return 0


cdef int _write_all(
        int descriptor, const uint8_t* head, size_t head_size, const uint8_t* payload, size_t length,
        size_t padding, uint64_t position, bint is_quick) except -1:
    """Write head, payload and padding as one run at ``position`` of the file, however many calls it takes.

    From RELEASE_MIN on without the GIL; ``payload`` must not change or go away meanwhile. With
    ``is_quick`` the GIL stays and no signal handler runs.

    Raises: OSError: any of the bytes may have been written. Whatever a signal handler raises: likewise.
    """
    cdef size_t total = head_size + length + padding, done = 0
    cdef int64_t written
    while done < total:
        if total >= RELEASE_MIN and not is_quick:
            with nogil:
                written = walrus_write_frame_at(descriptor, head, head_size, payload, length, padding, done, position)
        else:
            written = walrus_write_frame_at(descriptor, head, head_size, payload, length, padding, done, position)
        if written > 0:
            done += <size_t> written
        elif written == -EINTR:
            if not is_quick:
                PyErr_CheckSignals()
        else:
            # A regular file that takes nothing and reports nothing is a broken one.
            walrus_set_errno(<int> -written if written < 0 else EIO)
            PyErr_SetFromErrno(OSError)
    return 0


cdef class Tail:
    """Where the next frame of an unsealed block goes, and the append of one entry there.

    Invariants: ``state`` changes in one step, after the bytes are written. ``claimed`` is raised
    before a write starts, so ``torn`` (claimed beyond the state) tells that a write was
    interrupted and bytes of it may stand behind the last good frame.

    Threads: the caller holds the topic's lock for ``append``, ``claim``, ``advance`` and
    ``release``; ``state`` may be read at any time.
    """

    def __cinit__(self):
        self._window.held = False

    def __init__(
            self, *, write, window, int descriptor, uint64_t base, clock, uint64_t key, int algorithm,
            uint64_t first_offset, uint64_t end, uint64_t reserved, state):
        """Positions are bytes from the start of the block; the block starts at ``base`` of its file.

        ``write(at_bytes_in_block, data)`` is always there; ``window`` (the block's memory) and
        ``descriptor`` (of its file, -1: none) let the tail write by itself, as does ``clock``
        None, which means the system's clock. ``state`` is (at, index, payload_bytes, low, high):
        the end of the frames, their count, and totals.
        """
        self._let_go()
        self._set_state(state)
        self._write = write
        self._clock = clock
        self._descriptor = descriptor
        self._base = base
        self._released = False
        self.key = key
        self.algorithm = algorithm
        self.first_offset = first_offset
        self.end = end
        self.reserved = reserved
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

    def claim(self, uint64_t end_at):
        """Announce that bytes up to ``end_at`` may be written now."""
        self.claimed = end_at

    def advance(self, state):
        """Make frames that were written under ``claim`` part of the block, in one step."""
        self._set_state(state)

    def prepare(self, uint64_t start, uint64_t stop):
        """Have the pages of ``[start, stop)`` made ready in the background, where there is a window.

        Called for a reserved range that appends will soon reach. Does not wait.
        """
        if self._window.held and start < stop <= <uint64_t> self._window.buffer.len:
            walrus_prepare(<uint8_t*> self._window.buffer.buf + start, <size_t> (stop - start))

    def release(self):
        """Let go of the window; every later append finds no room.

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
        return 0

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
        cdef uint64_t limit = min(self.reserved, self.end)
        return self.claimed == self._at and not self._released \
            and self._at <= limit and length <= limit - self._at and walrus_frame_size(length) <= limit - self._at

    cdef inline uint64_t _direct_max(self) noexcept:
        """Return the length up to which the GIL is held from here to the copy into the frame."""
        if WALRUS_HAS_PWRITE and self._descriptor >= 0 and not self._window.held:
            return STAGED_MAX - WALRUS_HEADER_SIZE
        return RELEASE_MIN - WALRUS_HEADER_SIZE - WALRUS_ALIGN

    cdef object _append_bytes(self, bytes payload):
        return self._append(
            <const uint8_t*> PyBytes_AS_STRING(payload), <uint64_t> PyBytes_GET_SIZE(payload), False)

    cdef object _append(self, const uint8_t* payload, uint64_t length, bint is_quick):
        """Append a payload that the caller keeps alive; one of more than _direct_max() cannot change."""
        cdef uint64_t index, size, timestamp
        cdef object offset
        if not self._has_room(length):
            return -1
        timestamp = self._now()
        if self._clock is not None and not self._has_room(length):
            # The clock was Python code, and that has used this tail.
            return -1
        index, size = self._index, walrus_frame_size(length)
        if length > WALRUS_LENGTH_MAX or index > WALRUS_LENGTH_MAX or self.first_offset > UINT64_MAX - index:
            raise OverflowError("length, index or offset has no place in its field")
        # Made before the entry: where there is no memory for the answer nothing has happened.
        offset = self.first_offset + index
        if self._window.held:
            self._put_in_window(payload, length, timestamp)
        elif WALRUS_HAS_PWRITE and self._descriptor >= 0:
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
            self._window.held or (WALRUS_HAS_PWRITE and self._descriptor >= 0))

    cdef object append_quickly(self, bytes payload):
        """Append a payload of less than QUICK_MAX bytes to a tail that ``writes_alone``.

        Returns: its offset, or None where it does not fit or another thread is writing (nothing changed).
        """
        cdef uint64_t length = <uint64_t> PyBytes_GET_SIZE(payload)
        if length >= QUICK_MAX or not self._has_room(length):
            return None
        return self._append(<const uint8_t*> PyBytes_AS_STRING(payload), length, True)

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
        _make_scratch(lanes_size + (0 if self._window.held else <size_t> size))
        frames.key, frames.algorithm, frames.timestamp = self.key, self.algorithm, timestamp
        frames.index, frames.count = <uint32_t> self._index, 0
        frames.lanes = <walrus_lane*> _scratch
        frames.heads = <uint8_t**> (frames.lanes + count)
        target = _scratch + lanes_size
        if self._window.held:
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
        if not self._window.held:
            _write_all(
                self._descriptor, _scratch + lanes_size, <size_t> size, NULL, 0, 0, self._base + self._at, True)
        return 0

    # --- with the lock ------------------------------------------------------------------------------

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
