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
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.errno cimport EINTR, EIO
from libc.stddef cimport size_t
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

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
    uint32_t walrus_length_of(const uint8_t* head)
    uint64_t walrus_timestamp_of(const uint8_t* head)
    bint walrus_take(walrus_reader* reader, const walrus_frame* frame)
    bint walrus_verify_apart(
        walrus_reader* reader, const walrus_frame* frame, const uint8_t* head, const uint8_t* payload)
    int walrus_verify_there(walrus_reader* reader, const walrus_frame* frames, walrus_lane* lanes, int count)
    void walrus_seek(walrus_reader* reader)
    bint walrus_find(walrus_reader* reader, int64_t index_min, walrus_frame* frame)
    void walrus_walk(walrus_reader* reader, walrus_totals* totals)


cdef extern from "_system.h" nogil:
    const bint WALRUS_HAS_PWRITE
    const bint WALRUS_HAS_CLOCK
    uint64_t walrus_now_ns()
    void walrus_set_errno(int number)
    int walrus_read_at(
        int descriptor, uint8_t* first, size_t first_size, uint8_t* second, size_t second_size, uint64_t position)
    int64_t walrus_write_frame_at(
        int descriptor, const uint8_t* head, size_t head_size, const uint8_t* payload, size_t length,
        size_t padding, size_t done, uint64_t position)


cdef extern from "_prepare.h" nogil:
    void walrus_prepare(const void* start, size_t length)


cdef enum:
    GATHER_MIN = 64 * 1024
    HEAP_KEPT = 8 * 1024 * 1024
    RELEASE_MIN = 64 * 1024         # bytes from which a loop or a write runs without the GIL,
    RELEASE_DECODE_MIN = 256 * 1024     # for entries that are made of them
    RELEASE_ENCODE_MIN = 1024 * 1024    # and for runs of frames
    STAGED_MAX = 4096               # frames up to this size are put together on the stack
    QUICK_MAX = 64 * 1024 - 64      # payloads below it are written with the GIL held,
    QUICK_BATCH_MAX = 1024 * 1024   # and batches of up to so many bytes of frames
    CALL_MIN = 16 * 1024            # frames of so many bytes are written by a call also where a window is

if (
    _format.FRAME_HEADER_SIZE, _format.FRAME_ALIGN, _format.KIND_ENTRY, _format.FLAG_FIRST,
    _format.CHECKSUM_FNV1A64, _format.FRAME_STRUCT,
) != (WALRUS_HEADER_SIZE, WALRUS_ALIGN, WALRUS_KIND, WALRUS_FIRST, WALRUS_FNV1A64, "<QIIBBHIQ"):
    raise ImportError("walrus_core._hot_c was built for another disk format: rebuild it")

walrus_checksum_setup()

COMPILED = True
READS_FILES = bool(WALRUS_HAS_PWRITE)

FNV_BASIS = WALRUS_FNV_BASIS
FNV_PRIME = WALRUS_FNV_PRIME

DONE = WALRUS_DONE
SHORT = WALRUS_SHORT
BAD_HEADER = WALRUS_BAD_HEADER
BAD_PAYLOAD = WALRUS_BAD_PAYLOAD

GATHER_BYTES_MIN = GATHER_MIN
CALL_BYTES_MIN = CALL_MIN


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

include "_encode_c.pxi"

# --- memory that is used within one call ---------------------------------------------------


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


# --- decode ---------------------------------------------------------------------------------

include "_decode_c.pxi"

# --- the append path of one block ---------------------------------------------------------------

include "_stage_c.pxi"
include "_tail_c.pxi"
