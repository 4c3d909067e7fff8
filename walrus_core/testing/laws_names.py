"""Laws of a backend as a directory of files, and of what it says about itself."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from attrs import fields

from walrus_core.backend import BACKEND_API, BACKEND_API_OLDEST, Backend, Capabilities, SegmentFile
from walrus_core.testing.limits import DESCRIPTORS, few_descriptors
from walrus_core.testing.subject import NotApplicable, Subject, hold, law, open_file, pattern, raises, same

METHODS = {
    "discard": ("discard",),
    "drop_cache": ("drop_cache",),
    "vectored": ("write_many", "read_many"),
    "memory": ("memory",),
    "paging": ("prepare", "unload"),
    "fileno": ("fileno",),
}
"""Methods of a file behind each capability."""


def _put(backend: Backend, path: str, data: bytes) -> None:
    with open_file(backend.create(path, size_bytes=len(data))) as file:
        file.write_at(0, data)
        file.sync()


def _get(backend: Backend, path: str) -> bytes:
    with open_file(backend.open(path)) as file:
        return bytes(file.read_at(0, file.size_bytes))


def _names(subject: Subject, backend: Backend) -> list[str]:
    return sorted(backend.list(subject.directory))


# --- what it says of itself -----------------------------------------------------------------


@law()
def it_says_what_it_is(subject: Subject) -> None:
    """``name`` and ``api`` are of the class and fit the core; every required method is there."""
    with subject.backend() as backend:
        hold(isinstance(backend.name, str) and backend.name, f"name is {backend.name!r}")
        hold(
            isinstance(backend.api, int) and BACKEND_API_OLDEST <= backend.api <= BACKEND_API,
            f"api is {backend.api!r}, the core takes {BACKEND_API_OLDEST} to {BACKEND_API}",
        )
        hold(
            isinstance(backend, Backend),
            f"{type(backend).__name__} lacks a method of walrus_core.backend.Backend",
        )
        with open_file(backend.create(subject.path("one"), size_bytes=10)) as file:
            kind = type(file).__name__
            hold(isinstance(file, SegmentFile), f"{kind} lacks a method of walrus_core.backend.SegmentFile")
        facts = backend.probe()
        hold(
            isinstance(facts, dict) and all(isinstance(key, str) for key in facts),
            "probe returns no facts by name",
        )


@law()
def capabilities_are_kept(subject: Subject) -> None:
    """They do not change, and every method that stands behind a flag is there."""
    with subject.file() as (backend, file):
        before = backend.capabilities
        hold(isinstance(before, Capabilities), f"capabilities is a {type(before).__name__}")
        for flag, methods in METHODS.items():
            missing = [method for method in methods if not callable(getattr(file, method, None))]
            hold(
                not (getattr(before, flag) and missing),
                f"{flag} is declared, and there is no {', '.join(missing)}",
            )
        is_reader = callable(getattr(backend, "open_read_only", None))
        hold(is_reader or not before.read_only, "read_only is declared, and there is no open_read_only")
        file.write_at(0, b"x")
        file.sync()
        changed = [
            flag.name
            for flag in fields(Capabilities)
            if getattr(backend.capabilities, flag.name) != getattr(before, flag.name)
        ]
        hold(not changed, f"{', '.join(changed)} changed while a file was written")


# --- creating and opening -------------------------------------------------------------------


@law()
def create_refuses_an_existing_file(subject: Subject) -> None:
    """FileExistsError, and the file that is there keeps every byte."""
    with subject.backend() as backend:
        _put(backend, subject.path("there"), b"precious")
        raises(
            FileExistsError,
            "create of a file that exists",
            lambda: backend.create(subject.path("there"), size_bytes=99),
        )
        same(_get(backend, subject.path("there")), b"precious", "the file that create refused to replace")


@law()
def open_refuses_a_missing_file(subject: Subject) -> None:
    """FileNotFoundError, and none is made."""
    with subject.backend() as backend:
        raises(
            FileNotFoundError, "open of a file that is not there", lambda: backend.open(subject.path("no"))
        )
        hold(_names(subject, backend) == [], "open made a file")


@contextmanager
def _odd_files(subject: Subject) -> Iterator[None]:
    if os.name == "nt":
        raise NotApplicable("making links and pipes needs a privilege on Windows")
    os.symlink(subject.path("file"), subject.path("symbolic"))
    os.symlink(subject.path("nowhere"), subject.path("dangling"))
    os.mkfifo(subject.path("pipe"))
    os.mkdir(subject.path("folder"))
    yield


@law("files")
def what_is_no_plain_file_is_refused(subject: Subject) -> None:
    """Symbolic links, pipes and directories are not opened; create does not follow a link."""
    with subject.backend() as backend:
        _put(backend, subject.path("file"), b"x")
        with _odd_files(subject):
            for name in ("symbolic", "dangling", "pipe", "folder"):
                raises(OSError, f"open of a {name}", partial(backend.open, subject.path(name)))
            raises(
                FileExistsError,
                "create at the place of a dangling link",
                lambda: backend.create(subject.path("dangling"), size_bytes=10),
            )
            hold(not os.path.lexists(subject.path("nowhere")), "create followed a link")


@law("files")
def a_refused_open_keeps_no_descriptor(subject: Subject) -> None:
    """Refusals cost nothing: the core asks again and again, and a descriptor each would be its last."""
    with subject.backend() as backend, _odd_files(subject), few_descriptors(DESCRIPTORS):
        for name in ("missing", "symbolic", "pipe", "folder"):
            for number in range(2 * DESCRIPTORS):
                error = raises(OSError, f"open of a {name}", partial(backend.open, subject.path(name)))
                hold(
                    error.errno not in (errno.EMFILE, errno.ENFILE),
                    f"open of a {name}, refused {number} times, kept descriptors: {error}",
                )


@law("files")
def nobody_else_may_read_what_is_made(subject: Subject) -> None:
    """Directories have mode 0700 and files 0600, whatever the umask is."""
    if os.name == "nt":
        raise NotApplicable("modes are of POSIX")
    for mask in (0o000, 0o777):
        below = f"{subject.directory}/{mask:03o}/below"
        with subject.backend() as backend:
            before = os.umask(mask)
            try:
                backend.make_directory(below)
                backend.create(f"{below}/file", size_bytes=10).close()
            finally:
                os.umask(before)
        for path, wanted in ((os.path.dirname(below), 0o700), (below, 0o700), (f"{below}/file", 0o600)):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            hold(
                mode == wanted,
                f"{os.path.basename(path)} has mode {mode:04o} under umask {mask:03o}, not {wanted:04o}",
            )


@law()
def an_existing_directory_is_left(subject: Subject) -> None:
    """``make_directory`` again, and of one below, keeps the files that are there."""
    with subject.backend() as backend:
        _put(backend, subject.path("kept"), b"kept")
        backend.make_directory(subject.directory)
        backend.make_directory(f"{subject.directory}/below/deeper")
        same(_get(backend, subject.path("kept")), b"kept", "a file in a directory that was made again")
        _put(backend, f"{subject.directory}/below/deeper/file", b"deep")
        same(_get(backend, f"{subject.directory}/below/deeper/file"), b"deep", "a file two directories below")


# --- names ------------------------------------------------------------------------------------


@law()
def list_names_the_files_of_the_directory(subject: Subject) -> None:
    """Bare names, each once; not those of other directories, nor the directories."""
    with subject.backend() as backend:
        hold(_names(subject, backend) == [], "a new directory lists something")
        other = f"{subject.directory}/other"
        backend.make_directory(other)
        names = [f"{number:020d}.wal" for number in range(20)] + ["cursors.db", "ä.free"]
        for name in names:
            backend.create(subject.path(name), size_bytes=0).close()
        backend.create(f"{other}/elsewhere", size_bytes=0).close()
        hold(
            _names(subject, backend) == sorted(names),
            f"list names {_names(subject, backend)}, not {sorted(names)}",
        )
        hold(
            list(backend.list(other)) == ["elsewhere"],
            f"list of the other directory: {list(backend.list(other))}",
        )


@law()
def rename_moves_the_file(subject: Subject) -> None:
    """The bytes are there under the new name, and the old one is free."""
    data = pattern(9000, "moved")
    with subject.backend() as backend:
        _put(backend, subject.path("1.free"), data)
        backend.rename(subject.path("1.free"), subject.path("1.wal"))
        backend.sync_dir(subject.directory)
        hold(_names(subject, backend) == ["1.wal"], f"after the rename there are {_names(subject, backend)}")
        same(_get(backend, subject.path("1.wal")), data, "the renamed file")
        raises(FileNotFoundError, "open by the old name", lambda: backend.open(subject.path("1.free")))
        _put(backend, subject.path("1.free"), b"new")
        same(_get(backend, subject.path("1.wal")), data, "the renamed file beside a new one of its old name")


@law()
def rename_replaces_what_has_the_name(subject: Subject) -> None:
    """As ``os.replace``: the file that had the new name is gone, whatever its size was."""
    with subject.backend() as backend:
        for name, data in (("new", b"new bytes"), ("old", pattern(8000, "old"))):
            _put(backend, subject.path(name), data)
        backend.rename(subject.path("new"), subject.path("old"))
        backend.sync_dir(subject.directory)
        hold(_names(subject, backend) == ["old"], f"after the rename there are {_names(subject, backend)}")
        same(_get(backend, subject.path("old")), b"new bytes", "the file that took the name over")


@law()
def a_failed_rename_or_remove_changes_nothing(subject: Subject) -> None:
    """Of a file that is not there: FileNotFoundError, and the others stay."""
    with subject.backend() as backend:
        _put(backend, subject.path("kept"), b"kept")
        raises(FileNotFoundError, "remove of a missing file", lambda: backend.remove(subject.path("no")))
        raises(
            FileNotFoundError,
            "rename of a missing file",
            lambda: backend.rename(subject.path("no"), subject.path("kept")),
        )
        same(_get(backend, subject.path("kept")), b"kept", "the file beside")
        hold(_names(subject, backend) == ["kept"], f"there are {_names(subject, backend)}")


@law()
def a_removed_file_is_gone(subject: Subject) -> None:
    """Its name can be used again, and the new file has none of the old bytes."""
    with subject.backend() as backend:
        _put(backend, subject.path("one"), pattern(20_000, "old"))
        _put(backend, subject.path("two"), b"two")
        backend.remove(subject.path("one"))
        backend.sync_dir(subject.directory)
        hold(_names(subject, backend) == ["two"], f"after the remove there are {_names(subject, backend)}")
        raises(FileNotFoundError, "open of a removed file", lambda: backend.open(subject.path("one")))
        with open_file(backend.create(subject.path("one"), size_bytes=30_000)) as file:
            same(file.read_at(0, 30_000), bytes(30_000), "a new file under the name of a removed one")
        same(_get(backend, subject.path("two")), b"two", "the file beside")


@law()
def several_files_are_kept_apart(subject: Subject) -> None:
    """Writes to one of many open files are never seen in another."""
    with subject.backend() as backend:
        files = [backend.create(subject.path(f"f{number}"), size_bytes=6000) for number in range(12)]
        try:
            for step in range(3):
                for number, file in enumerate(files):
                    file.write_at(step * 1000, pattern(800, (number, step)))
            for number, file in enumerate(files):
                for step in range(3):
                    same(file.read_at(step * 1000, 800), pattern(800, (number, step)), f"file {number}")
        finally:
            for file in files:
                file.close()
