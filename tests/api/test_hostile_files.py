"""What others may have put where files of the log belong, and who may read what the log makes."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import NEVER, WHOLE_BLOCK, contents

from walrus_core import Walrus
from walrus_core.errors import ConfigError, StorageError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes and links are POSIX's")

SEGMENT = "00000000000000000001.wal"
VICTIM = b"of someone else"


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """``os.umask``, put back after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def modes(path: str) -> dict[str, int]:
    """Return the mode of every file and directory below ``path``, which itself is ``.``."""
    found = {".": stat.S_IMODE(os.stat(path).st_mode)}
    for folder, directories, files in os.walk(path):
        for name in directories + files:
            whole = os.path.join(folder, name)
            found[os.path.relpath(whole, path)] = stat.S_IMODE(os.lstat(whole).st_mode)
    return found


@pytest.mark.parametrize("mask", [0, 0o077, 0o777])
def test_all_that_a_log_makes_is_for_its_owner_alone(file_store, umask, mask):
    umask(mask)
    with Walrus(file_store.path, key="k", backend=file_store.backend(), block_size=16384) as wal:
        wal.append_for_topic("t", b"a")
    # Several segments, of which some were given back; a torn block that is copied aside; more pages
    # of cursors.db than it began with.
    wal = file_store.open(fsync_schedule=NEVER)
    for number in range(9):
        wal.append_for_topic("t", bytes([number]) * WHOLE_BLOCK)
    for number in range(40):
        wal.append_for_topic(f"topic {number}", b"a")
    wal.batch_read_for_topic("t", max_bytes=6 * WHOLE_BLOCK)
    wal.sync()
    wal.append_for_topic("u", b"first of u")
    wal.append_for_topic("u", b"second of u")
    wal.append_for_topic("u", b"third of u")
    other = file_store.killed()
    place = other.find(b"second of u")
    other.flip(*place)
    report = other.open().recovery_report
    assert any(cut.evidence_path for cut in report.cuts)
    made = modes(file_store.path)
    made.update((name, mode) for name, mode in modes(other.path).items() if name.endswith((".cut", "LOCK")))
    kinds = {"LOCK", "cursors.db", ".wal", ".cut", "ns-k-", "."}
    assert {kind for kind in kinds if not any(kind in name for name in made)} == set()
    for name, mode in made.items():
        is_directory = name == "." or os.path.isdir(os.path.join(file_store.path, name))
        assert mode == (0o700 if is_directory else 0o600), name


def test_a_directory_and_a_lock_file_that_exist_keep_their_modes(file_store):
    os.mkdir(file_store.path)
    os.chmod(file_store.path, 0o750)
    lock = Path(file_store.path, "LOCK")
    lock.touch()
    lock.chmod(0o640)
    file_store.open()
    assert modes(file_store.path)["."] == 0o750
    assert modes(file_store.path)["LOCK"] == 0o640


# --- something else in the place of a file ----------------------------------------------------------


def _symbolic(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _dangling(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("nowhere"))


def _hard(path: Path, victim: Path) -> None:
    os.link(victim, path)


def _pipe(path: Path, victim: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path, victim: Path) -> None:
    path.mkdir()


def _device(path: Path, victim: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero: opens, reads, writes
    except PermissionError:
        pytest.skip("making a device needs root")


def _socket(path: Path, victim: Path) -> None:
    # A path of a socket has to be short.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


INTRUDERS = [_symbolic, _dangling, _hard, _pipe, _directory, _device, _socket]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file elsewhere that a link would reach."""
    path = tmp_path / "victim"
    path.write_bytes(VICTIM)
    return path


@pytest.mark.timeout(20)
@pytest.mark.parametrize("intrude", INTRUDERS, ids=lambda function: function.__name__[1:])
@pytest.mark.parametrize("name", ["LOCK", "cursors.db", SEGMENT])
@pytest.mark.parametrize("knows_nofollow", [True, False], ids=["nofollow", "without"])
def test_what_is_no_file_of_ours_is_refused(
    file_store, victim, tmp_path, monkeypatch, intrude, name, knows_nofollow
):
    if not knows_nofollow:
        monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    with file_store.open() as wal:
        wal.append_for_topic("t", b"a")
    path = Path(file_store.path, name)
    content = path.read_bytes()
    path.unlink()
    intrude(path, victim)
    status = path.lstat()
    with pytest.raises(StorageError) as caught:
        _use(file_store)
    assert "poisoned" not in str(caught.value)
    assert victim.read_bytes() == VICTIM and not victim.with_name("nowhere").exists()
    now = path.lstat()
    assert (now.st_mode, now.st_ino, now.st_mtime_ns) == (status.st_mode, status.st_ino, status.st_mtime_ns)
    # And nothing of ours was harmed: with the file in its place again the log is as it was.
    (path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink)()
    path.write_bytes(content)
    assert contents(file_store.open(), "t") == [b"a"]


def _use(store) -> None:
    """Open, and append where that works: a directory in the place of a segment is no file at all."""
    wal = store.open()
    try:
        wal.append_for_topic("u", b"a" * 14_000)
    finally:
        wal.close()


def test_leftovers_and_copies_are_no_way_out_either(file_store, victim):
    with file_store.open() as wal:
        wal.append_for_topic("t", b"a")
    free = Path(file_store.path, "00000000000000000009.free")
    free.symlink_to(victim)
    with file_store.open() as wal:
        assert contents(wal, "t") == [b"a"]
    assert not free.is_symlink() and victim.read_bytes() == VICTIM


def test_a_namespace_that_is_a_link(file_store, tmp_path):
    with Walrus(file_store.path, key="k", backend=file_store.backend()) as wal:
        wal.append_for_topic("t", b"a")
    (name,) = os.listdir(file_store.path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.rename(os.path.join(file_store.path, name), tmp_path / "kept")
    os.symlink(elsewhere, os.path.join(file_store.path, name))
    with pytest.raises(ConfigError, match="link"):
        Walrus(file_store.path, key="k", backend=file_store.backend())
    assert list(elsewhere.iterdir()) == []


# --- walrus.toml ------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
@pytest.mark.parametrize("intrude", [_symbolic, _dangling, _pipe, _directory, _device, _socket])
@pytest.mark.parametrize("knows_flags", [True, False], ids=["flags", "without"])
def test_a_configuration_that_is_no_file_is_refused(tmp_path, victim, monkeypatch, intrude, knows_flags):
    if not knows_flags:
        monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
        monkeypatch.delattr(os, "O_NONBLOCK", raising=False)
    victim.write_text('backend = "memory"\n')
    directory = tmp_path / "log"
    directory.mkdir()
    intrude(directory / "walrus.toml", victim)
    with pytest.raises(ConfigError):
        Walrus(directory)


needs_flags = pytest.mark.skipif(
    not (hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_NONBLOCK")),
    reason="this system has no O_NOFOLLOW and O_NONBLOCK: what comes after the look it cannot tell",
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "intrude",
    [pytest.param(_symbolic, marks=needs_flags), pytest.param(_pipe, marks=needs_flags), _directory, _device],
)
def test_a_configuration_that_is_exchanged_between_look_and_opening(tmp_path, victim, monkeypatch, intrude):
    victim.write_text('backend = "memory"\n')
    path = tmp_path / "log" / "walrus.toml"
    path.parent.mkdir()
    path.write_text('backend = "memory"\n')
    system_open = os.open
    opened = []

    def exchange(name, flags, *mode, **options):
        if os.fspath(name) == str(path):
            path.unlink()
            intrude(path, victim)
            opened.append(name)
        return system_open(name, flags, *mode, **options)

    monkeypatch.setattr(os, "open", exchange)
    with pytest.raises(ConfigError):
        Walrus(path.parent)
    assert len(opened) == 1


def test_a_configuration_that_is_named_may_be_a_link(tmp_path, victim):
    victim.write_text('backend = "memory"\n')
    link = tmp_path / "link.toml"
    link.symlink_to(victim)
    with Walrus(tmp_path / "log", config_file=link) as wal:
        assert wal.append_for_topic("t", b"a") == 0


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"a = " + b"[" * 20_000,
        b"block_size = " + b"9" * 5_000,
        b"block_size = 0x" + b"f" * 5_000,
        b'fsync = "' + b"9" * 5_000 + b'"',
        b"#" * (1024 * 1024 + 1),
        b"backend_options = 0x" + b"f" * 5_000,
        b"blocked_plugins = [0x" + b"f" * 5_000 + b"]",
        b'on_corruption = ["raise"]',
    ],
    ids=["no UTF-8", "nested", "long", "long hex", "long text", "large", "no table", "no names", "a list"],
)
def test_a_configuration_that_lies(tmp_path, text):
    (tmp_path / "walrus.toml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        Walrus(tmp_path, backend="memory")
    assert len(str(caught.value)) < 2_000


# --- a directory that others may write in -----------------------------------------------------------


@pytest.mark.parametrize(("mode", "who"), [(0o770, "its group"), (0o707, "everybody"), (0o777, "everybody")])
def test_a_directory_that_others_may_write_in_is_warned_of(file_store, caplog, monkeypatch, mode, who):
    os.mkdir(file_store.path)
    os.chmod(file_store.path, mode)
    with caplog.at_level(logging.WARNING):
        file_store.open().close()
    assert [who in message for message in caplog.messages] == [True]
    caplog.clear()
    monkeypatch.setenv("WALRUS_QUIET", "1")
    file_store.open().close()
    os.chmod(file_store.path, 0o755)
    monkeypatch.delenv("WALRUS_QUIET")
    file_store.open().close()
    assert caplog.messages == []
