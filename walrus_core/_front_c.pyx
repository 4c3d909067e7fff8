# cython: language_level=3
# cython: embedsignature=True
# cython: embedsignature.format=clinic
"""The express way, compiled: the twin of ``_front_py.py``, which says what its names mean.

An append to a topic whose tail is admitted, and a read of what was read ahead, are done right
here: no lock, no Python code, the GIL held from the first look to the last change. That is what
makes them whole for every other thread and every signal. Whatever is not that simple goes the
long way round, through the methods of the same class in Python.

Invariants: a tail is admitted only while its topic is noted as dirty and nobody holds the topic's
lock to change it; a Ready only while nobody holds the topic's read lock to move the cursor.
"""

cimport cython
from cpython.bytes cimport PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact, PyList_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.pythread cimport (
    PY_LOCK_INTR,
    PyLockStatus,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport UINT64_MAX, uint64_t
from libc.string cimport memmove

from walrus_core._hot_c cimport Entry, Tail, _entry_in

from walrus_core import format as _format
from walrus_core.errors import ReentrantCallError

cdef extern from "Python.h":
    PyObject* PyDict_GetItemWithError(object mapping, object key) except? NULL
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int intr_flag) nogil

cdef enum:
    FRAME_HEADER_SIZE = 32
    FRAME_ALIGN = 8

if (_format.FRAME_HEADER_SIZE, _format.FRAME_ALIGN) != (FRAME_HEADER_SIZE, FRAME_ALIGN):
    raise ImportError("walrus_core._front_c was built for another disk format: rebuild it")

cdef Py_ssize_t BATCH_COUNT_MAX = _format.BATCH_COUNT_MAX
cdef str DEFAULT_CURSOR = "default"


@cython.final
@cython.binding(False)
cdef class Ready:
    """Where a cursor stands, and the frames read ahead of it."""

    cdef readonly uint64_t offset
    cdef public uint64_t limit
    cdef bytes _run
    cdef Py_ssize_t _at
    cdef uint64_t _next
    cdef uint64_t _end

    def __init__(self, uint64_t offset):
        self.offset = offset
        self.limit = 0
        self.drop()

    def move(self, uint64_t offset):
        """Set the cursor's next offset."""
        self.offset = offset

    def fill(self, bytes run not None, Py_ssize_t at, uint64_t offset, uint64_t end_offset):
        """Take over verified frames, entries ``[offset, end_offset)``, in ``run`` from ``at`` on."""
        if not 0 <= at <= PyBytes_GET_SIZE(run):
            raise ValueError(f"no place in a run of {PyBytes_GET_SIZE(run)} bytes: {at}")
        self._run, self._at, self._next, self._end = run, at, offset, end_offset

    def drop(self):
        """Forget the frames."""
        self._run, self._at, self._next, self._end = None, 0, 0, 0

    def peek(self, uint64_t offset):
        """Return the entry at ``offset``, or None where it is not among them; earlier ones are dropped."""
        cdef Entry entry
        while self._next < self._end:
            if self._next > offset:
                return None
            entry = _entry_in(self._run, self._at, self._next)
            if entry is None or self._next == offset:
                return entry
            self._pass(entry)
        return None

    cdef inline int _pass(self, Entry entry) except -1:
        """Step behind the entry; the run goes with its last one."""
        self._at += (FRAME_HEADER_SIZE + PyBytes_GET_SIZE(entry.data) + FRAME_ALIGN - 1) & -FRAME_ALIGN
        self._next += 1
        if self._next >= self._end:
            self._run = None
        return 0

    cdef inline Entry _take(self):
        """Consume the entry at the cursor, or return None where the long way must be taken."""
        cdef Entry entry
        if self.offset >= self.limit:
            return None
        while self._next < self._end and self._next <= self.offset:
            entry = _entry_in(self._run, self._at, self._next)
            if entry is None:
                return None
            self._pass(entry)
            if entry.offset == self.offset:
                self.offset += 1
                return entry
        return None


@cython.final
@cython.binding(False)
cdef class Express:
    """Which tails and cursors of one log may be used without their locks."""

    cdef public bint blocked
    cdef public bint watched
    cdef dict _tails
    cdef dict _cursors
    # What was found last: the same name, as an object, finds the same again.
    cdef object _tail_name
    cdef Tail _tail
    cdef object _ready_name
    cdef Ready _ready

    def __init__(self):
        self.blocked = False
        self.watched = True
        self._tails = {}
        self._cursors = {}

    def admit_tail(self, topic, Tail tail not None):
        """Let appends to the topic go into ``tail`` directly; the caller holds the topic's lock."""
        if PyUnicode_CheckExact(topic) and tail.writes_alone:
            self._tail_name = self._tail = None
            self._tails[topic] = tail

    def bar_tail(self, topic):
        """Let no append go past the topic's lock any more; the caller has just taken it."""
        self._tail_name = self._tail = None
        self._tails.pop(topic, None)

    def admit_cursor(self, topic, Ready ready not None):
        """Let the topic's default cursor take from ``ready``; the caller holds the read lock."""
        if PyUnicode_CheckExact(topic):
            self._ready_name = self._ready = None
            self._cursors[topic] = ready

    def bar_cursor(self, topic):
        """Let no read go past the read lock any more; the caller has just taken it."""
        self._ready_name = self._ready = None
        self._cursors.pop(topic, None)

    cdef inline Tail _tail_of(self, object topic):
        """Return the topic's tail, or None where it is not admitted."""
        cdef PyObject* found
        if topic is self._tail_name:
            return self._tail
        if not PyUnicode_CheckExact(topic):
            return None
        found = PyDict_GetItemWithError(self._tails, topic)
        if found == NULL:
            return None
        self._tail_name, self._tail = topic, <Tail> found
        return self._tail

    cdef inline Ready _ready_of(self, object topic):
        """Return what the topic's default cursor may take from, or None where it is not admitted."""
        cdef PyObject* found
        if topic is self._ready_name:
            return self._ready
        if not PyUnicode_CheckExact(topic):
            return None
        found = PyDict_GetItemWithError(self._cursors, topic)
        if found == NULL:
            return None
        self._ready_name, self._ready = topic, <Ready> found
        return self._ready


include "_group_c.pxi"
include "_await_c.pxi"


cdef class Front:
    """Base of Walrus: the calls that have an express way."""

    cdef public Express _express
    cdef public Express _in_flight      # for appends that nobody waits for
    cdef public Group _group            # who waits for appends, where every append is waited for
    cdef public object _door
    cdef public dict _topics

    def __cinit__(self, *args, **kwargs):
        self._express = self._in_flight = Express()
        self._express.blocked = True

    @cython.binding(False)
    def append_for_topic(self, topic, data):
        """Append one entry; a new topic begins with its first entry.

        Args:
            topic: 1 to 1 024 bytes of UTF-8 without NUL.
            data: any bytes-like object; it may be reused when the call returns.

        Returns: the offset of the entry in its topic.

        Raises: InvalidTopicError, InvalidPayloadError, EntryTooLargeError, DiskFullError,
        TooManyFilesError: nothing changed. SyncFailedError (sync-each): the entry is in doubt and
        not visible, the log is poisoned. StorageError: poisoned. PoisonedError, ClosedError.

        Durability: sync-each: survives power loss on return. Else survives the death of the process.
        """
        cdef object offset
        if self._group is None:
            offset = self._append_quickly(self._express, topic, data)
        else:
            offset = self._append_durably(topic, data)
        return self._append_entry(topic, data) if offset is None else offset

    @cython.binding(False)
    def append_nowait(self, topic, data):
        """Append one entry and return its offset at once, whatever the schedule is.

        With sync-each the log syncs in the background what is in flight, and the entry is visible
        once it is durable. ``wait_durable`` waits for that, ``durable_offset`` tells, and
        ``append_async`` is awaited until then. Else the same as ``append_for_topic``.

        Durability: sync-each: none on return, not even against the death of the process, since the
        entry may wait in memory for its sync. Else survives the death of the process.

        Raises: as ``append_for_topic``; a sync that fails later poisons the log.
        """
        cdef object offset = self._append_quickly(self._in_flight, topic, data)
        if offset is None:
            return self._append_in_flight(topic, data)
        if not self._in_flight.watched:
            # First, and here, so that an interrupt leaves nothing in flight that nobody looks after.
            self._in_flight.watched = True
            try:
                if not self._request_sync():
                    # No thread can be had now: the next append asks again. (Never set to True here: the
                    # thread may have begun and ended its sync by now, and looks for nothing any more.)
                    self._in_flight.watched = False
            except BaseException:
                self._in_flight.watched = False
                raise
        return offset

    cdef object _append_durably(self, object topic, object data):
        """Append past the lock and wait for the sync, or return None where the long way must be taken."""
        cdef object inside = self._door.inside
        cdef object offset, found
        if inside._is_owned():
            return None
        offset = self._append_quickly(self._in_flight, topic, data)
        if offset is None:
            return None
        found = self._topics[topic]
        inside.acquire()
        try:
            self._group.wait(found, <uint64_t> offset + 1)
        finally:
            inside.release()
        return offset

    cdef inline object _append_quickly(self, Express express, object topic, object data):
        """Append past the lock, or return None where the long way must be taken."""
        cdef Tail tail
        if not PyBytes_CheckExact(data) or express.blocked:
            return None
        tail = express._tail_of(topic)
        if tail is None:
            return None
        try:
            return tail.append_quickly(<bytes> data)
        except OSError as error:
            raise self._write_error(topic, error) from error

    @cython.binding(False)
    def batch_append_for_topic(self, topic, batch):
        """Append all entries of ``batch`` or none, for readers at any moment and after any crash.

        Args:
            batch: up to 2 000 payloads, together up to 10 GiB. An empty batch changes nothing.

        Returns: the offsets of the entries.

        Raises: as ``append_for_topic``, and BatchTooLargeError: nothing changed.
        """
        cdef Tail tail
        cdef object offsets
        cdef Py_ssize_t count = 0
        cdef Express express = self._express
        if PyList_CheckExact(batch):
            count = PyList_GET_SIZE(batch)
        elif PyTuple_CheckExact(batch):
            count = PyTuple_GET_SIZE(batch)
        if 0 < count <= BATCH_COUNT_MAX and not express.blocked:
            tail = express._tail_of(topic)
            if tail is not None:
                try:
                    offsets = tail.append_batch_quickly(batch, count)
                except OSError as error:
                    raise self._write_error(topic, error) from error
                if offsets is not None:
                    return offsets
        return self._append_batch(topic, batch)

    @cython.binding(False)
    def read_next(self, topic, checkpoint=True, *, cursor=DEFAULT_CURSOR, on_corruption=None):
        """Return the next entry that the cursor has not consumed, or None.

        Args:
            checkpoint: consume it. False peeks: nothing moves, nothing is written.
            cursor: name of the reader's position; each name reads the whole topic for itself.
            on_corruption: "raise" or "skip" for this call; None takes the log's option.

        Raises: CorruptionError: damage stands at the cursor, which has not moved; with "skip" the
        damage is passed and listed in ``damages``. StorageError: the cursor has not moved.

        Durability: strictly-at-once: the checkpoint is durable before the call returns (and if it
        never returns, the entry counts as read). At-least-once: every ``persist_every`` entries,
        and at the first one that a new name reads.
        """
        cdef Ready ready
        cdef Entry entry
        cdef Express express = self._express
        if checkpoint is True and cursor is DEFAULT_CURSOR and on_corruption is None and not express.blocked:
            ready = express._ready_of(topic)
            if ready is not None:
                entry = ready._take()
                if entry is not None:
                    return entry
        return self._read_one(topic, checkpoint, cursor, on_corruption)
