# Group commit: a part of ``_front_c.pyx``, included there; the twin of ``Group`` in ``group.py``,
# which says what its names mean.

cdef struct Follower:
    # On the stack of the thread that waits, and in the list while it does.
    PyObject* topic
    uint64_t offset
    PyThread_type_lock released
    bint is_released
    Follower* next


cdef inline bint _is_durable(object topic, uint64_t offset) except -1:
    cdef uint64_t durable_offset = topic.durable_offset
    return durable_offset >= offset


@cython.final
@cython.binding(False)
cdef class Group:
    """Whoever finds nobody syncing leads; the others wait without the GIL until a leader lets go of them.

    Invariants: everything but the sync itself and the waiting is done with the GIL held and without
    Python code, so it is whole for every other thread and every signal. Who is in the list is not
    released; whenever nobody leads, somebody who was let go is on the way, or the list is empty.
    """

    cdef object _sync
    cdef bint _is_led
    cdef uint64_t _begun                # syncs
    cdef uint64_t _completed            # the last one that ended well, counted as above
    cdef unsigned long _leader
    cdef Follower* _first
    cdef Follower* _last
    cdef readonly Py_ssize_t waiting

    def __init__(self, sync):
        self._sync = sync

    def wait(self, topic, uint64_t offset):
        """Return when entries of ``topic`` below ``offset`` are durable. Raises: what the sync raises."""
        while not _is_durable(topic, offset):
            if self._is_led:
                self._follow(topic, offset)
            else:
                self._lead(topic, offset)

    def lead(self):
        """Return when a sync has ended that began after the call. Raises: what the sync raises."""
        cdef uint64_t needed = self._begun + 1
        while self._completed < needed:
            if self._is_led:
                self._follow(None, needed)
            else:
                self._lead(None, 0)

    def wait_idle(self):
        """Return when the sync that is under way has ended."""
        while self._is_led:
            self._follow(None, self._begun)
        # It may be this thread that was let go, to lead.
        self._hand_over()

    cdef int _lead(self, object topic, uint64_t offset) except -1:
        cdef uint64_t number = self._begun + 1
        self._begun = number
        self._is_led = True
        self._leader = PyThread_get_thread_ident()
        try:
            self._sync(topic, offset)
            self._completed = number
        finally:
            self._is_led = False
            self._hand_over()
        return 0

    cdef int _follow(self, object topic, uint64_t offset) except -1:
        """Wait to be let go, because the entries are durable or this thread is to lead."""
        cdef Follower me
        cdef PyLockStatus status
        if self._is_led and self._leader == PyThread_get_thread_ident():
            # Of all calls only those that break into the sync of their own thread could wait for ever.
            raise ReentrantCallError(operation="a wait for a sync")
        me.released = PyThread_allocate_lock()
        if me.released == NULL:
            raise MemoryError()
        PyThread_acquire_lock(me.released, 0)
        me.topic, me.offset, me.is_released, me.next = <PyObject*> topic, offset, False, NULL
        if self._last == NULL:
            self._first = &me
        else:
            self._last.next = &me
        self._last = &me
        self.waiting += 1
        try:
            while not me.is_released:
                with nogil:
                    status = PyThread_acquire_lock_timed(me.released, -1, 1)
                if status == PY_LOCK_INTR:
                    PyErr_CheckSignals()
        except BaseException:
            if not me.is_released:
                self._leave(&me)
            elif not self._is_led:
                # Perhaps it was this thread that was to lead.
                self._hand_over()
            raise
        finally:
            PyThread_free_lock(me.released)
        return 0

    cdef int _leave(self, Follower* leaver) noexcept:
        """Take a follower out of the list who was not let go."""
        cdef Follower* before = NULL
        cdef Follower* each = self._first
        while each != leaver:
            before, each = each, each.next
        self._unlink(before, each)
        return 0

    cdef inline int _unlink(self, Follower* before, Follower* each) noexcept:
        if before == NULL:
            self._first = each.next
        else:
            before.next = each.next
        if self._last == each:
            self._last = before
        self.waiting -= 1
        return 0

    cdef int _hand_over(self) except -1:
        """Let go of the followers who need not wait any more, and of one who will lead the others."""
        cdef Follower* before = NULL
        cdef Follower* each = self._first
        cdef Follower* next
        while each != NULL:
            next = each.next
            if self._is_served(each):
                self._unlink(before, each)
                self._let_go(each)
            else:
                before = each
            each = next
        if self._first != NULL:
            each = self._first
            self._unlink(NULL, each)
            self._let_go(each)
        return 0

    cdef inline bint _is_served(self, Follower* follower) except -1:
        if follower.topic == <PyObject*> None:
            return self._completed >= follower.offset
        return _is_durable(<object> follower.topic, follower.offset)

    cdef inline int _let_go(self, Follower* follower) noexcept:
        follower.is_released = True
        PyThread_release_lock(follower.released)
        return 0
