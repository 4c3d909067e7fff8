# What other compiled modules may use of ``_hot_c``; the words are there.

from libc.stdint cimport uint8_t, uint64_t


cdef struct Window:
    # The memory of the block. Wrapped, so that the garbage collector cannot take the buffer's owner
    # out of it without releasing the buffer.
    Py_buffer buffer
    bint held


cdef class Entry:
    cdef readonly uint64_t offset
    cdef readonly uint64_t timestamp
    cdef readonly bytes data


cdef Entry _entry_in(bytes run, Py_ssize_t at, uint64_t offset)


cdef class Stage:
    cdef uint8_t* _frames
    cdef size_t _size
    cdef size_t used

    cdef uint8_t* room(self, size_t size) noexcept
    cdef int write(self, int descriptor, uint64_t end) except -1
    cdef int drop(self) noexcept


cdef class Tail:
    cdef object _write
    cdef object _clock
    cdef Window _window
    cdef int _descriptor
    cdef uint64_t _base
    cdef bint _released
    cdef bint _writing              # into the window, with the GIL released
    cdef bint _stages
    cdef Stage _stage               # frames of the block's last bytes, not yet in the file
    cdef readonly uint64_t key
    cdef readonly int algorithm
    cdef readonly uint64_t first_offset
    cdef public uint64_t end
    cdef public uint64_t reserved
    cdef public uint64_t ready      # frames of less than CALL_MIN bytes end here, where pages are ready
    cdef public uint64_t claimed
    # The parts of ``state``.
    cdef uint64_t _at
    cdef uint64_t _index
    cdef uint64_t _payload_bytes
    cdef uint64_t _low
    cdef uint64_t _high

    cdef object append_quickly(self, bytes payload)
    cdef object append_batch_quickly(self, object batch, Py_ssize_t count)

    cdef object _append_staged(self, bytes payload, uint64_t length)
    cdef int _write_stage(self) except -1
    cdef int _let_go(self) except -1
    cdef int _set_state(self, object state) except -1
    cdef uint64_t _now(self) except? 0
    cdef bint _has_room(self, uint64_t length) noexcept
    cdef bint _has_space(self, uint64_t size) noexcept
    cdef bint _is_mapped(self, uint64_t size) noexcept
    cdef uint64_t _direct_max(self) noexcept
    cdef object _append_bytes(self, bytes payload)
    cdef object _append(self, const uint8_t* payload, uint64_t length, bint is_quick)
    cdef int _put_in_window(self, const uint8_t* payload, uint64_t length, uint64_t timestamp) except -1
    cdef int _put_in_file(self, const uint8_t* payload, uint64_t length, uint64_t timestamp, bint is_quick) except -1
    cdef int _put_by_call(self, const uint8_t* payload, uint64_t length, uint64_t timestamp) except -1
    cdef int _put_batch(self, object batch, Py_ssize_t count, uint64_t size, uint64_t timestamp) except -1
    cdef int _advance(self, uint64_t size, uint64_t count, uint64_t payload_bytes, uint64_t timestamp) noexcept
