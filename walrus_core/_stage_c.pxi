# Frames on their way into a file: a part of ``_hot_c.pyx``, included there, with its names and rules.

cdef enum:
    STAGE_MIN = 1024                # memory for frames of a block that wait for a sync: at first,
    STAGE_MAX = 64 * 1024           # and at most; a sync writes it in some 20 us, with the GIL held


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


cdef class Stage:
    """Memory for frames of one block that wait for a sync to write them all: its last ones, in order.

    The GIL is held through every method, so that each is one step for every other thread.
    """

    def __dealloc__(self):
        self.drop()

    cdef uint8_t* room(self, size_t size) noexcept:
        """Return where ``size`` more bytes go, or NULL where there is no room for them."""
        cdef size_t grown = max(self._size, <size_t> STAGE_MIN)
        cdef uint8_t* frames
        if size > STAGE_MAX - self.used:
            return NULL
        if self.used + size > self._size:
            while grown < self.used + size:
                grown *= 2
            frames = <uint8_t*> PyMem_Realloc(self._frames, grown)
            if frames == NULL:
                return NULL
            self._frames, self._size = frames, grown
        return self._frames + self.used

    cdef int write(self, int descriptor, uint64_t end) except -1:
        """Write the frames, which end at ``end`` of the file. Raises: OSError: all of them wait on."""
        _write_all(descriptor, self._frames, self.used, NULL, 0, 0, end - self.used, True)
        self.used = 0
        return 0

    cdef int drop(self) noexcept:
        """Forget the frames and give the memory back."""
        PyMem_Free(self._frames)
        self._frames, self._size, self.used = NULL, 0, 0
        return 0
