"""Whether there is a ring, and why not; the ring and fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import textwrap
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from walrus_core.errors import ConfigError
from walrus_fd import binding
from walrus_fd import uring as uring_module
from walrus_fd.backend import FdBackend
from walrus_fd.ring import Ring
from walrus_fd.uring import Uring


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Not in this folder: the source tree must not stand in front of what is installed.
    return subprocess.run(
        command,
        env=environment,
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- reasons ----------------------------------------------------------------------------------


def test_off_is_off_and_says_so() -> None:
    answer = FdBackend(io_uring="off").probe()
    assert answer["io_uring"] == "off: switched off by the option io_uring"
    assert "io_uring" not in answer["writes"] + answer["reads"] + answer["syncs"]


@pytest.mark.usefixtures("needs_ring")
def test_live_is_found_by_io_and_named_with_the_version() -> None:
    backend = FdBackend(io_uring="on")
    answer = backend.probe()
    assert answer["io_uring"] == f"live (liburing {metadata.version('liburing')})"
    assert answer["writes"].startswith("io_uring from 2 extents")
    backend.close()
    assert backend.probe()["io_uring"] == "off: closed"


def test_an_absent_binding_is_a_reason_with_the_command_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uring_module, "_ask_kernel", lambda: None)

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert "pip install 'walrus-fd[uring]'" in Uring(enabled=True).describe()
    with pytest.raises(ConfigError, match="liburing is not installed") as caught:
        FdBackend(io_uring="on")
    assert caught.value.option == "io_uring"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("version", "has_avx512", "answer"),
    [
        ("2026.3.25", False, "needs AVX-512"),
        ("2027.1", False, "needs AVX-512"),
        ("2026.3.25", True, "importing it"),
        ("2024.5.3", False, "importing it"),
        ("2025.8.1", False, "importing it"),
        ("2023.12.1", True, "is older than 2024.5.3"),
        ("main", True, "unknown version main"),
    ],
)
def test_a_binding_is_not_imported_before_its_version_is_known_to_run_here(
    monkeypatch: pytest.MonkeyPatch, version: str, has_avx512: bool, answer: str
) -> None:
    def imported() -> Any:
        raise ImportError("importing it")

    monkeypatch.setattr(uring_module, "_ask_kernel", lambda: None)
    monkeypatch.setattr(binding, "load", imported)
    monkeypatch.setattr(metadata, "version", lambda name: version)
    monkeypatch.setattr(binding, "_has_avx512", lambda: has_avx512)
    assert answer in Uring(enabled=True).reason


def test_avx512_is_read_from_the_flags_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "with").write_text("model name : avx512f\nflags\t\t: fpu sse avx512f avx512vl\n")
    (tmp_path / "without").write_text("model name : avx512f\nflags\t\t: fpu sse avx2 avx512fx\n")
    assert binding._has_avx512(str(tmp_path / "with"))
    assert not binding._has_avx512(str(tmp_path / "without"))
    assert not binding._has_avx512(str(tmp_path / "absent"))


@pytest.mark.usefixtures("needs_ring")
def test_a_ring_that_gives_wrong_bytes_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Ring] = []
    real = Ring.close

    def close(ring: Ring) -> None:
        real(ring)
        closed.append(ring)

    monkeypatch.setattr(Ring, "run", lambda self, operations, outcome=None: [0] * len(operations))
    monkeypatch.setattr(Ring, "close", close)
    assert "the trial gave [[0, 0], [0], [0]]" in Uring(enabled=True).describe()
    assert len(closed) == 1 and not closed[0]._open


@pytest.mark.usefixtures("needs_ring")
def test_the_trial_leaves_no_descriptor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # else something of an earlier test goes between the counts
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        backend = FdBackend(io_uring="on")
        assert len(os.listdir("/proc/self/fd")) == before + 1
        backend.close()
        assert len(os.listdir("/proc/self/fd")) == before
    dropped = FdBackend(io_uring="on")
    del dropped
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before

    def fail(ring: Ring) -> None:
        raise OSError("no trial")

    monkeypatch.setattr(uring_module, "_try_out", fail)
    assert "no trial" in Uring(enabled=True).reason
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("needs_ring")
def test_an_interrupted_trial_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = uring_module._try_out

    def interrupt(ring: Ring) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uring_module, "_try_out", interrupt)
    uring = Uring(enabled=True)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        uring.describe()
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(uring_module, "_try_out", real)
    assert uring.describe().startswith("live")
    uring.close()


def test_importing_the_plugin_and_making_a_backend_imports_no_binding() -> None:
    program = """
        import sys
        from walrus_fd.plugin import walrus_register_backends
        backend = walrus_register_backends()[0]()
        print([name for name, module in sys.modules.items() if module and name.startswith("liburing")])
    """
    assert run_python(program).stdout == "[]\n"


@pytest.mark.usefixtures("needs_ring")
@pytest.mark.parametrize("order", ["before", "after"])
def test_loading_the_binding_leaves_the_package_usable_by_others(order: str) -> None:
    program = """
        import sys
        from walrus_fd.backend import FdBackend
        sys.excepthook = lambda kind, error, _: print(kind.__name__)
        if sys.argv[1] == "before":
            import liburing
            liburing.io_uring
        backend = FdBackend(io_uring="on")
        assert ("liburing" in sys.modules) is (sys.argv[1] == "before")
        import liburing
        assert backend._uring._ring._api.io_uring is liburing.io_uring
        assert liburing.io_uring_prep_openat
        backend.close()
        print("done")
    """
    done = run_python(program, order)
    if done.stdout == "PermissionError\n":
        pytest.skip("this user cannot import liburing as such: it may not write beside its code")
    assert done.stdout == "done\n", done.stderr


@pytest.mark.usefixtures("needs_ring")
def test_loading_the_binding_writes_nothing_beside_it() -> None:
    program = """
        import builtins, os, sys
        written = []
        def audit(event, arguments):
            if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
                written.append(arguments[0])
            if event in ("os.remove", "os.mkdir", "os.rename"):
                written.append(arguments[0])
        sys.dont_write_bytecode = True
        from walrus_fd import binding
        sys.addaudithook(audit)
        binding.load()
        print(written)
    """
    done = run_python(program)
    assert done.stdout == "[]\n", (done.stdout, done.stderr)


def test_a_binding_of_another_shape_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "liburing").mkdir()
    (tmp_path / "liburing" / "__init__.py").write_text("")
    (tmp_path / "liburing" / "queue.py").write_text("io_uring = None")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "liburing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(uring_module, "_ask_kernel", lambda: None)
    monkeypatch.setattr(metadata, "version", lambda name: "2025.1.1")
    assert "liburing 2025.1.1 cannot be used: ModuleNotFoundError" in Uring(enabled=True).reason
    assert "liburing" not in sys.modules
    monkeypatch.delitem(sys.modules, "liburing.queue")


DENY = """
    import ctypes, errno, struct, sys
    def deny(number, answer):
        # Classic BPF: load the number of the system call, compare, answer with an errno or allow.
        code = [(0x20, 0, 0, 0), (0x15, 0, 1, number)]
        code += [(0x06, 0, 0, 0x00050000 | answer), (0x06, 0, 0, 0x7FFF0000)]
        filters = b"".join(struct.pack("HBBI", *step) for step in code)
        buffer = ctypes.create_string_buffer(filters)
        program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer)))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
            print("no seccomp")
            sys.exit()
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or sys.maxsize < 2**32, reason="seccomp of 64-bit Linux"
)
@pytest.mark.skipif(not hasattr(os, "O_DSYNC"), reason="this system has no flag for durable writes")
@pytest.mark.parametrize("answer", ["EPERM", "ENOSYS", "ENOMEM"])
def test_a_kernel_that_denies_io_uring_is_named_and_plain_calls_serve(tmp_path: Path, answer: str) -> None:
    program = textwrap.dedent(DENY) + textwrap.dedent("""
        from walrus_core.errors import ConfigError
        from walrus_fd.backend import FdBackend
        deny(425, getattr(errno, sys.argv[2]))
        backend = FdBackend(durable_writes=True)
        files = [backend.create(sys.argv[1] + str(number), size_bytes=4096) for number in range(4)]
        files[0].write_many([(number * 10, [b"%d" % number]) for number in range(9)])
        found = files[0].read_many([(number * 10, 2) for number in range(9)])
        assert found == [b"%d\\0" % number for number in range(9)]
        backend.sync_many(files)
        for file in files:
            file.close()
        print(backend.probe()["io_uring"])
        try:
            FdBackend(io_uring="on")
        except ConfigError as error:
            print(error)
        assert "liburing.queue" not in sys.modules, "the kernel is asked before anything is imported"
    """)
    done = run_python(program, str(tmp_path / "f"), answer)
    if done.stdout == "no seccomp\n":
        pytest.skip("this kernel takes no seccomp filter")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"off: io_uring_setup answers {answer} (")
    assert second.startswith(f"io_uring: it is on, but io_uring_setup answers {answer} (")


# --- fork -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_ring")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_uses_plain_calls_and_the_ring_of_the_parent_goes_on(tmp_path: Path) -> None:
    program = """
        import os, sys
        from walrus_fd.backend import FdBackend
        backend = FdBackend(io_uring="on")
        file = backend.create(sys.argv[1], size_bytes=65536)
        file.write_many([(0, [b"parent"]), (100, [b"before"])])
        ring_file = backend._uring._ring._descriptor
        with open("/proc/self/maps") as maps:
            assert "io_uring" in maps.read()
        for turn in range(3):
            child = os.fork()
            if child == 0:
                try:
                    try:
                        os.fstat(ring_file)
                        os._exit(3)
                    except OSError:
                        pass
                    file.write_many([(1000 * turn + 200, [b"child"]), (1000 * turn + 300, [b"wrote"])])
                    backend.sync_many([file] * 3)
                    found = file.read_many([(0, 6), (1000 * turn + 200, 5)])
                    assert found == [b"parent", b"child"], found
                    reason = backend.probe()["io_uring"]
                    assert reason == "off: the process was forked after the ring was made", reason
                    with open("/proc/self/maps") as maps:
                        assert "io_uring" not in maps.read(), "the queues of the parent are within reach"
                    file.close()
                    backend.close()
                    del backend, file
                    os._exit(0)
                except BaseException as error:
                    print("child:", repr(error), flush=True)
                    os._exit(2)
            file.write_many([(100, [b"beside"]), (1000 * turn + 400, [b"child"])])
            _, status = os.waitpid(child, 0)
            assert status == 0, status
            found = file.read_many([(100, 6), (1000 * turn + 200, 5), (1000 * turn + 300, 5)])
            assert found == [b"beside", b"child", b"wrote"], found
        backend.sync_many([file] * 5)
        assert backend.probe()["io_uring"].startswith("live")
        file.close()
        backend.close()
        print("done")
    """
    done = run_python(program, str(tmp_path / "f"))
    assert done.stdout == "done\n", (done.stdout, done.stderr, done.returncode)


@pytest.mark.usefixtures("needs_ring")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_of_a_parent_whose_ring_is_busy_does_not_hang(tmp_path: Path) -> None:
    program = """
        import os, sys, threading, warnings
        from walrus_fd.backend import FdBackend
        # Newer interpreters warn of what this program does on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        backend = FdBackend(io_uring="on")
        file = backend.create(sys.argv[1], size_bytes=1 << 24)
        stop = threading.Event()
        def work():
            while not stop.is_set():
                file.write_many([(number << 16, [b"t" * 65536]) for number in range(1, 64)])
        thread = threading.Thread(target=work)
        thread.start()
        for turn in range(20):
            child = os.fork()
            if child == 0:
                file.write_many([(0, [b"c"]), (10, [b"d"])])
                backend.close()
                os._exit(0 if file.read_at(0, 1) == b"c" else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        thread.join()
        file.close()
        backend.close()
        print("done")
    """
    done = run_python(program, str(tmp_path / "f"))
    assert done.stdout == "done\n", (done.stdout, done.stderr, done.returncode)


def test_a_fork_without_a_ring_leaves_the_child_free_to_make_one() -> None:
    uring = Uring(enabled=True)
    uring.after_fork()
    assert uring._reason == ""
    uring._ring = types.SimpleNamespace(forget=lambda: None)  # type: ignore[assignment]
    uring.after_fork()
    assert uring.describe() == "off: the process was forked after the ring was made"
