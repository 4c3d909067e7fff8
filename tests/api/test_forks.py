"""A fork at a moment at which another thread opens or closes a log: the child is in nobody's way."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

FORK = """
import signal, threading, warnings
warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
from walrus_core import Walrus
from walrus_core.errors import ForkedError
from walrus_core.hookspecs import hookimpl

path, kind, moment = arguments
under_way, may_go_on = threading.Event(), threading.Event()

class Pause:
    "Keeps a thread in the middle of it."

    is_on = False

    def wait(self):
        if self.is_on:
            under_way.set()
            assert may_go_on.wait(30)

    @hookimpl
    def walrus_synced(self, file_count, duration_s):
        self.wait()

    @hookimpl
    def walrus_recovered(self, report):
        self.wait()

pause = Pause()

def open_log():
    return Walrus(path, backend=kind, observers=(pause,), block_size=16384, blocks_per_segment=4)

if moment == "opens":
    open_log().close()
    pause.is_on = True
    opened = []
    thread = threading.Thread(target=lambda: opened.append(open_log()))
else:
    opened = [open_log()]
    opened[0].append_for_topic("t", b"x")
    pause.is_on = True
    thread = threading.Thread(target=opened[0].close)
thread.start()
assert under_way.wait(30)
stays, goes = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(goes)
    signal.alarm(30)
    for wal in opened:
        for call in (lambda: wal.append_for_topic("t", b"y"), lambda: wal.read_next("t"), wal.close):
            try:
                call()
            except ForkedError:
                continue
            os._exit(2)
    assert os.read(stays, 1) == b""
    sys.exit(0)  # by way of what closes logs that were left open
os.close(stays)
pause.is_on = False
may_go_on.set()
thread.join()
opened[0].close()
again = open_log()  # while the child is there
again.append_for_topic("t", b"z")
again.close()
os.close(goes)
assert os.waitpid(pid, 0)[1] == 0
print("parent went on")
"""


@pytest.mark.parametrize("moment", ["opens", "closes"])
@pytest.mark.parametrize("kind", ["fd", "mmap"])
def test_a_child_forked_beside_another_thread(tmp_path, run_child, file_kind, kind, moment):
    """It holds no lock of its parent, gets an error from every call, and waits for nobody."""
    file_kind(kind)
    done = run_child(FORK, tmp_path / "log", kind, moment)
    assert done.stdout == "parent went on\n"
