"""Seeded bugs of the backends: results of system calls that are not looked at, space that is not there."""

from __future__ import annotations

from .bug import Bug

FD = "plugins/walrus_fd/walrus_fd"
FD_TESTS = "plugins/walrus_fd/tests"
MMAP = "plugins/walrus_mmap/walrus_mmap"
MMAP_TESTS = "plugins/walrus_mmap/tests"

BUGS = [
    Bug(
        "fd: short write ignored",
        f"{FD}/files.py",
        "        if count != length_bytes:\n            if count == 0:",
        "        if count == 0:\n            if count == 0:",
        "the rest of an entry is never written",
        (f"{FD_TESTS}/test_fd_files.py::test_short_counts_of_reads_and_writes_go_on",),
        is_quick=True,
    ),
    Bug(
        "fd: short gathered write ignored",
        f"{FD}/files.py",
        "        while done_bytes < piece.length_bytes:",
        "        if done_bytes < piece.length_bytes:",
        "the rest of a batch is never written",
        (f"{FD_TESTS}/test_fd_files.py::test_short_counts_of_reads_and_writes_go_on",),
    ),
    Bug(
        "fd: fsync tried again",
        f"{FD}/files.py",
        "            os.fdatasync(self._descriptor)\n",
        "            try:\n                os.fdatasync(self._descriptor)\n            except OSError:\n"
        "                os.fdatasync(self._descriptor)\n",
        "the second answer of a failed sync is believed",
        (f"{FD_TESTS}/test_fd_files.py::test_a_failed_sync_is_raised_and_never_tried_again",),
        is_quick=True,
    ),
    Bug(
        "fd: no fsync of a directory",
        f"{FD}/backend.py",
        "            os.fsync(descriptor)\n",
        "            pass\n",
        "names of files are not durable",
        (f"{FD_TESTS}/test_fd_backend.py::test_a_failed_sync_of_a_directory_is_raised",),
    ),
    Bug(
        "fd: parent of a new directory not synced",
        f"{FD}/backend.py",
        "            self.sync_dir(os.path.dirname(directory))\n",
        "",
        "the directory of the log is gone after a power cut",
        (
            f"{FD_TESTS}/test_fd_backend.py::test_make_directory_syncs_each_new_entry_and_the_one_it_starts_at",
        ),
    ),
    Bug(
        "fd: partial file left after ENOSPC",
        f"{FD}/backend.py",
        "                file.close()\n                os.unlink(path)\n",
        "                file.close()\n",
        "a create that failed leaves a file that stands in the way of the next",
        (f"{FD_TESTS}/test_fd_backend.py::test_a_create_that_fails_leaves_no_file_and_no_descriptor",),
        is_quick=True,
    ),
    Bug(
        "fd: sync's result in the ring ignored",
        f"{FD}/backend.py",
        "                elif result < 0:\n",
        "                elif False:\n",
        "a failed sync of several files counts as done",
        (f"{FD_TESTS}/test_fd_ring_faults.py::test_a_failed_sync_of_the_ring_is_raised_and_not_tried_again",),
    ),
    Bug(
        "fd: write's result in the ring ignored",
        f"{FD}/files.py",
        "            self._write_piece(piece, count)\n",
        "            pass\n",
        "short writes of the ring are not finished",
        (f"{FD_TESTS}/test_fd_ring_faults.py::test_short_writes_of_the_ring_are_finished",),
    ),
    Bug(
        "fd: failed write in the ring tried again",
        f"{FD}/files.py",
        "    if result < 0:\n        raise OSError(-result, os.strerror(-result))\n    return result",
        "    return max(result, 0)",
        "a failed write counts as one that was never begun",
        (f"{FD_TESTS}/test_fd_ring_faults.py::test_a_failed_write_of_the_ring_is_not_tried_again",),
    ),
    Bug(
        "fd: ring used after a fork",
        f"{FD}/uring.py",
        '        ring, self._ring = self._ring, None\n        if ring is not None:\n            self._reason = "the process',
        '        ring = None\n        if ring is not None:\n            self._reason = "the process',
        "the child keeps the ring of its parent",
        (f"{FD_TESTS}/test_fd_uring.py::test_a_child_uses_plain_calls_and_the_ring_of_the_parent_goes_on",),
    ),
    Bug(
        "fd: closed before what is in flight ends",
        f"{FD}/ring.py",
        "                self._drive(flight)\n            finally:\n                self._settle()\n"
        "        finally:\n            try:\n                self._settle()\n",
        "                self._drive(flight)\n            finally:\n                pass\n"
        "        finally:\n            try:\n                self._flight = None\n",
        "after an interrupt the kernel writes from buffers and to descriptors that are gone",
        (f"{FD_TESTS}/test_fd_ring_faults.py::test_an_interrupt_at_any_point_leaves_nothing_in_flight",),
    ),
    Bug(
        "fd: completion of an earlier round taken",
        f"{FD}/ring.py",
        "            if flight.first_token <= token < flight.first_token + len(flight.operations):\n",
        "            if True:\n",
        "an operation counts as done because an older one is",
        (
            f"{FD_TESTS}/test_fd_ring_faults.py::test_a_completion_left_by_an_interrupt_is_not_taken_for_that_of_a_later_operation",
        ),
    ),
    Bug(
        "fd: failed reservation kept",
        f"{FD}/space.py",
        "            os.ftruncate(descriptor, size_bytes)\n",
        "            pass\n",
        "a reservation that failed leaves the file longer",
        (f"{FD_TESTS}/test_fd_space.py::test_a_failed_reserve_without_fallocate_restores_the_size",),
    ),
    Bug(
        "mmap: sparse file under the map",
        f"{MMAP}/file.py",
        "                system.allocate(self._descriptor, start, stop)\n",
        "                os.ftruncate(self._descriptor, max(stop, size_bytes))\n",
        "on a full disk a store into the map kills the process",
        (f"{MMAP_TESTS}/test_space.py::test_reserve_takes_the_space_and_keeps_every_byte",),
    ),
    Bug(
        "mmap: discarded space taken for reserved",
        f"{MMAP}/file.py",
        "            self._reserved.remove(at_bytes - at_bytes % PAGE_BYTES, end + -end % PAGE_BYTES)\n",
        "",
        "a store into a hole kills the process on a full disk",
        (f"{MMAP_TESTS}/test_space.py::test_discarded_space_is_reserved_again_before_a_write",),
    ),
    Bug(
        "mmap: failed reservation kept",
        f"{MMAP}/file.py",
        "            self._give_back(size_bytes, empty)\n            raise",
        "            raise",
        "a reservation that failed keeps its space",
        (f"{MMAP_TESTS}/test_space.py::test_a_failed_reservation_is_undone",),
    ),
    Bug(
        "mmap: file cut by others",
        f"{MMAP}/file.py",
        "        size_bytes = self._size_seen = os.fstat(self._descriptor).st_size\n",
        "        size_bytes = self._size_seen = max(self._size_seen, os.fstat(self._descriptor).st_size)\n",
        "a look behind the end of a file kills the process",
        (f"{MMAP_TESTS}/test_file.py::test_a_file_cut_by_others_is_an_error_not_a_signal",),
    ),
    Bug(
        "mmap: no fsync",
        f"{MMAP}/file.py",
        "            os.fdatasync(self._descriptor)\n            return\n",
        "            return\n",
        "nothing is ever durable",
        (f"{MMAP_TESTS}/test_sync.py::test_a_sync_error_is_raised_once_and_not_retried",),
        is_quick=True,
    ),
    Bug(
        "mmap: cache dropped before the sync",
        f"{MMAP}/file.py",
        "        self.sync()\n        with self._lock:\n            self._unmap()\n",
        "        with self._lock:\n            self._unmap()\n",
        "what is not durable yet stays in the cache, and is believed",
        (f"{MMAP_TESTS}/test_sync.py::test_drop_cache_makes_durable_first",),
    ),
    Bug(
        "mmap: short write ignored",
        f"{MMAP}/system.py",
        "        while done < len(view):\n            count = os.pwrite",
        "        if done < len(view):\n            count = os.pwrite",
        "the rest of an entry is never written",
        (f"{MMAP_TESTS}/test_file.py::test_short_counts_of_writes_go_on",),
    ),
    Bug(
        "mmap: short gathered write ignored",
        f"{MMAP}/system.py",
        "            if done < len(data):\n",
        "            if False:\n",
        "the rest of a batch is never written",
        (f"{MMAP_TESTS}/test_file.py::test_short_counts_of_writes_go_on",),
    ),
    Bug(
        "mmap: no fsync of a directory",
        f"{MMAP}/system.py",
        "    try:\n        os.fsync(descriptor)\n",
        "    try:\n        pass\n",
        "names of files are not durable",
        (f"{MMAP_TESTS}/test_backend.py::test_a_failed_directory_sync_is_raised",),
        is_quick=True,
    ),
    Bug(
        "mmap: partial file left after ENOSPC",
        f"{MMAP}/backend.py",
        "            file.close()\n            os.remove(path)\n",
        "            file.close()\n",
        "a create that failed leaves a file that stands in the way of the next",
        (f"{MMAP_TESTS}/test_backend.py::test_a_failed_create_leaves_no_file",),
    ),
]
