# Futures that wait for entries: a part of ``_front_c.pyx``, included there; the twins of ``Waiters``
# and ``Loops`` in ``waiters.py``, which says what their names mean.

cdef enum:
    WAITERS_MIN = 32


@cython.final
@cython.binding(False)
cdef class Queue:
    """The futures of one topic on one loop, offsets ascending: ``futures[first:]`` wait.

    Python code runs only where a future is asked or settled, and where the collector does: a signal handler
    or a finaliser may come in there, and add more or settle, so nothing read before is believed afterwards.
    """

    cdef object topic
    cdef list futures
    cdef uint64_t* offsets
    cdef Py_ssize_t size
    cdef Py_ssize_t first
    cdef bint is_settling

    def __cinit__(self, topic):
        self.topic = topic
        self.futures = []

    def __dealloc__(self):
        PyMem_Free(self.offsets)

    cdef int add(self, uint64_t offset, object future) except -1:
        cdef Py_ssize_t count = PyList_GET_SIZE(self.futures), grown
        cdef uint64_t* offsets
        if count == self.size:
            grown = max(2 * count, <Py_ssize_t> WAITERS_MIN)
            offsets = <uint64_t*> PyMem_Realloc(self.offsets, grown * sizeof(uint64_t))
            if offsets == NULL:
                raise MemoryError()
            self.offsets, self.size = offsets, grown
        self.offsets[count] = offset
        self.futures.append(future)
        return 0

    cdef bint is_empty(self) noexcept:
        return self.first == PyList_GET_SIZE(self.futures)

    cdef int settle(self, object failure) except -1:
        if self.is_settling:
            return 0
        self.is_settling = True
        try:
            while self._settle_to(self.topic.durable_offset, None):
                pass
            if failure is not None:
                self._settle_to(UINT64_MAX, failure)
        finally:
            self.is_settling = False
            self._forget_settled()
        return 0

    cdef Py_ssize_t _settle_to(self, uint64_t end, object failure) except -1:
        """Settle those below ``end``. Returns: how many."""
        cdef Py_ssize_t count = 0
        while not self.is_empty() and self.offsets[self.first] < end:
            future = self.futures[self.first]
            if not future.done():
                if failure is None:
                    future.set_result(None)
                else:
                    future.set_exception(failure)
            # Once it is settled, so that an interrupt forgets none.
            self.first += 1
            count += 1
        return count

    cdef int _forget_settled(self) except -1:
        cdef list left = []
        cdef Py_ssize_t at = self.first
        # One by one: a new list of a size may run the collector, whose finalisers may add some meanwhile.
        while at < PyList_GET_SIZE(self.futures):
            left.append(self.futures[at])
            at += 1
        memmove(self.offsets, self.offsets + self.first, PyList_GET_SIZE(left) * sizeof(uint64_t))
        # In one step for all others: the last reference to a future may run code of anybody.
        self.first = 0
        self.futures = left
        return 0


@cython.final
@cython.binding(False)
cdef class Waiters:
    """The futures of one loop. Only the loop's thread touches them; ``is_asked`` is anybody's."""

    cdef public bint is_asked
    cdef dict _by_topic

    def __init__(self):
        self._by_topic = {}
        self.is_asked = False

    def __bool__(self):
        return len(self._by_topic) != 0

    def add(self, topic, uint64_t offset, future):
        """Take in a future for the entry at ``offset``, which is behind those of the topic that wait."""
        self._add(topic, offset, future)

    cdef int _add(self, object topic, uint64_t offset, object future) except -1:
        cdef PyObject* found = PyDict_GetItemWithError(self._by_topic, topic)
        cdef Queue queue
        if found != NULL:
            queue = <Queue> found
        else:
            # A new object may run the collector as well, and that this very function.
            queue = <Queue> self._by_topic.setdefault(topic, Queue.__new__(Queue, topic))
        return queue.add(offset, future)

    def settle(self, failure):
        """Settle the futures whose entries are durable; all others with ``failure``, where there is one.

        Raises: whatever an interrupt raises: the others wait on, and none is forgotten.
        """
        cdef Queue queue
        for each in list(self._by_topic.values()):
            queue = <Queue> each
            queue.settle(failure)
            if queue.is_empty() and not queue.is_settling:
                self._by_topic.pop(queue.topic, None)


cdef class Loops:
    """The event loops that wait for entries of one log; a subclass has ``_settle`` and ``_new``."""

    cdef object _gate
    cdef readonly dict loops

    def __init__(self, gate):
        self._gate = gate
        self.loops = {}

    @cython.binding(False)
    def until(self, loop, topic, uint64_t offset):
        """Return a future of the loop, which runs here, that is done when the entry at ``offset`` is durable.

        It raises what says why that will never be known.
        """
        cdef PyObject* found
        cdef Waiters waiters
        future = loop.create_future()
        found = PyDict_GetItemWithError(self.loops, loop)
        if found != NULL:
            waiters = <Waiters> found
        else:
            waiters = self._new(loop)
        waiters._add(topic, offset, future)
        if _is_durable(topic, offset + 1) or self._gate.failure is not None or self._gate.blocks_writes:
            # The sync was over before the future was there for it to see.
            self._settle(loop)
        return future
