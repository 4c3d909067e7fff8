"""Makes a damaged directory one that opens, and destroys no evidence.

``plan_repair`` decides, on an overlay, what would be changed; ``carry_out`` does it. Before a byte
changes, every byte that will be replaced or removed is copied to a folder of its own, with a manifest
that says what and why, all of it synced. Each change is then written and synced before the next;
cursors.db is replaced as a whole, in one step.

Idempotent, and safe to interrupt anywhere: what was changed already is sound and in no later plan.
Entries are never invented: a damaged frame, and a block of which both headers are lost, stay as they
are, since readers step over them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Optional

from attrs import field, frozen

from walrus_core import format as fmt
from walrus_core.backend import Backend
from walrus_core.errors import storage_error
from walrus_core.files import FileCache, LogFile, wrap_directory_call
from walrus_core.findings import DAMAGE, REBUILD, REPAIR, RESET, Finding, VerifyReport
from walrus_core.gate import Gate
from walrus_core.look import Look, Progress, open_look, show_nothing
from walrus_core.mend import log_id_of_cursors, log_ids_of_segments, mend_cursors
from walrus_core.paths import free_name
from walrus_core.verify import FOREIGN_KIND, log_of_directory, verify_directory

FOLDER_PREFIX = "repair-"
MANIFEST_NAME = "manifest.json"
DONE_NAME = "done.json"
MANIFEST_VERSION = 1
WRITE, REPLACE, REMOVE = "write", "replace", "remove"
_COPY_BYTES = 1024 * 1024
_OPEN_FILES_MAX = 16
_NEW_CURSORS_NAME = free_name(0)
"""What a crash leaves under this name the next open removes."""


@frozen(kw_only=True)
class Step:
    """One change: WRITE ``data`` at ``at_bytes`` of the file, REPLACE the file by ``data``, or REMOVE it."""

    action: str
    path: str
    at_bytes: int = 0
    data: bytes = field(default=b"", repr=False)
    why: tuple[str, ...] = ()


@frozen(kw_only=True)
class RepairPlan:
    """What a repair would do, and what it would leave."""

    path: str
    steps: tuple[Step, ...]
    before: VerifyReport
    """What was found."""
    left: tuple[Finding, ...]
    """Damage that stays: what nothing mends, and what an option would that was not given."""


def plan_repair(
    backend: Backend,
    directory: str,
    *,
    resets_cursors: bool = False,
    rebuilds_cursors: bool = False,
    progress: Progress = show_nothing,
) -> RepairPlan:
    """Verify a directory that nobody writes to, and decide what to change. Changes nothing.

    Args:
        backend: How to read; it stays open.
        directory: The caller keeps writers out of it.
        resets_cursors: Set cursor pages anew of which both states are lost: to the oldest entry.
        rebuilds_cursors: Make anew what of cursors.db has no sound copy, from the blocks.
        progress: As for ``verify_directory``.

    Raises: as ``verify_directory``.
    """
    before = verify_directory(backend, directory, progress=progress)
    wanted = {REPAIR}
    if rebuilds_cursors:
        wanted.add(REBUILD)
    if resets_cursors and (rebuilds_cursors or all(f.remedy != REBUILD for f in before.findings)):
        # A cursors.db that does not open cannot be reset.
        wanted.add(RESET)
    mended = [finding for finding in before.findings if finding.remedy in wanted]
    with open_look(backend, directory, from_medium=False) as look:
        steps = list(_steps(look, mended, {finding.remedy for finding in mended}))
    left = tuple(finding for finding in before.of(DAMAGE) if finding.remedy not in wanted)
    return RepairPlan(path=directory, steps=tuple(steps), before=before, left=left)


def _steps(look: Look, mended: list[Finding], asked: set[Optional[str]]) -> Iterator[Step]:
    """Make the changes in the overlay, and yield what they are."""
    names = look.names()
    for finding in mended:
        if finding.mended is not None:
            file = look.files.add(finding.path)
            # A copy may lie behind the end of a file that was cut short.
            file.reserve(finding.at_bytes, len(finding.mended))
            file.write(finding.at_bytes, finding.mended)
            look.files.close()
    if RESET in asked or REBUILD in asked:
        own = log_id_of_cursors(look.files, look.directory, names)
        log_id = log_of_directory(own, log_ids_of_segments(look.files, look.directory, names, own))
        mend_cursors(
            look.files, look.directory, names, log_id, rebuilds=REBUILD in asked, resets=RESET in asked
        )
        look.files.close()
    cursors_path = os.path.normpath(look.path(fmt.CURSORS_NAME))
    changes = look.backend.changes()
    for change in changes:
        if change.path != cursors_path:
            why = _reasons(mended, change.path, change.at_bytes, len(change.data))
            yield Step(action=WRITE, path=change.path, at_bytes=change.at_bytes, data=change.data, why=why)
    if any(change.path == cursors_path for change in changes):
        data = look.read_file(cursors_path)
        why = _reasons(mended, cursors_path, 0, max(len(data), 1))
        yield Step(action=REPLACE, path=cursors_path, data=data, why=why)
    for finding in mended:
        if finding.kind == FOREIGN_KIND:
            yield Step(action=REMOVE, path=os.path.normpath(finding.path), why=(finding.kind,))


def _reasons(mended: list[Finding], path: str, at_bytes: int, length_bytes: int) -> tuple[str, ...]:
    """Say which findings lie in a range of a file, or behind the end of one that was cut short."""
    return tuple(
        f"{finding.kind} at byte {finding.at_bytes}"
        for finding in mended
        if os.path.normpath(finding.path) == path and 0 <= finding.at_bytes - at_bytes <= length_bytes
    )


# --- doing it -----------------------------------------------------------------------------


def carry_out(backend: Backend, plan: RepairPlan, *, now: Callable[[], float] = time.time) -> Optional[str]:
    """Copy aside all that the plan changes, then change it.

    Returns: the folder with the copies; None where there is nothing to do.
    Raises: StorageError, SyncFailedError: what is done is done, a new plan does the rest.
    Durability: the copies and the manifest before the first change; each change before the next.
    Threads: the caller holds the directory's lock, as a writer.
    """
    if not plan.steps:
        return None
    gate = Gate(plan.path, _do_nothing, True, ())
    files = FileCache(backend, _OPEN_FILES_MAX, gate)
    try:
        repair = _Repair(files, plan)
        folder = repair.make_folder(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now())))
        repair.copy_aside(now())
        for step in plan.steps:
            repair.change(step)
        repair.write_json(DONE_NAME, {"finished_s": now()})
        return folder
    finally:
        files.close()


def _do_nothing(_fact: Any) -> None:
    """Nobody listens."""


class _Repair:
    """One repair under way."""

    def __init__(self, files: FileCache, plan: RepairPlan) -> None:
        self._files = files
        self._backend = files.backend
        self._plan = plan
        self._folder = ""

    def _call(self, path: str, operation: str, call: Callable[[], Any], poisons: bool = False) -> Any:
        return wrap_directory_call(self._files.gate, path, operation, call, poisons)

    def _sync_directory(self, path: str) -> None:
        self._call(path, "sync", partial(self._backend.sync_dir, path), poisons=True)

    def make_folder(self, stamp: str) -> str:
        """Make a folder of its own inside the log's directory, durably. Returns: its path."""
        number = 1
        while True:
            suffix = "" if number == 1 else f"-{number}"
            folder = os.path.join(self._plan.path, f"{FOLDER_PREFIX}{stamp}{suffix}")
            if self._is_free(folder):
                break
            number += 1
        self._call(folder, "create directory", partial(self._backend.make_directory, folder))
        self._folder = folder
        return folder

    def _is_free(self, folder: str) -> bool:
        try:
            return not list(self._backend.list(folder))
        except FileNotFoundError:
            return True
        except OSError as error:
            raise storage_error(error, folder, "list") from error

    def copy_aside(self, now_s: float) -> None:
        """Copy what every step changes, then say so in the manifest, durably."""
        names = set(self._call(self._plan.path, "list", partial(self._backend.list, self._plan.path)))
        told = []
        for number, step in enumerate(self._plan.steps, 1):
            name = os.path.basename(step.path)
            fact: dict[str, Any] = {
                "action": step.action,
                "file": name,
                "at_bytes": step.at_bytes,
                "why": list(step.why),
                "copy": None,
            }
            if step.action != REMOVE:
                fact["new_length_bytes"] = len(step.data)
                fact["new_sha256"] = hashlib.sha256(step.data).hexdigest()
            if name in names:
                copy = f"{number:04d}-{name}" + (f"-{step.at_bytes}" if step.action == WRITE else "")
                fact.update(self._copy(step, copy))
            told.append(fact)
        self.write_json(MANIFEST_NAME, {"version": MANIFEST_VERSION, "created_s": now_s, "steps": told})

    def _copy(self, step: Step, name: str) -> dict[str, Any]:
        """Copy the old bytes of a step; zeros stay holes. Returns: facts for the manifest."""
        old = self._files.add(step.path)
        size = old.size_bytes()
        first = min(step.at_bytes, size) if step.action == WRITE else 0
        end = min(size, first + len(step.data)) if step.action == WRITE else size
        path = os.path.join(self._folder, name)
        copy = self._create(path, end - first)
        digest = hashlib.sha256()
        for at in range(first, end, _COPY_BYTES):
            data = bytes(old.read(at, min(_COPY_BYTES, end - at)))
            digest.update(data)
            if data.strip(b"\0"):
                copy.write(at - first, data)
        self._finish(copy)
        return {"copy": name, "length_bytes": end - first, "sha256": digest.hexdigest()}

    def _create(self, path: str, size_bytes: int) -> LogFile:
        handle = self._call(path, "create", partial(self._backend.create, path, size_bytes=size_bytes))
        return self._files.add(path, handle)

    def _finish(self, file: LogFile) -> None:
        self._files.sync([file])
        self._files.forget(file)

    def write_json(self, name: str, facts: dict[str, Any]) -> None:
        """Write a file of facts into the folder, durably, with all that is in the folder."""
        data = json.dumps(facts, indent=1).encode() + b"\n"
        file = self._create(os.path.join(self._folder, name), len(data))
        file.write(0, data)
        self._finish(file)
        self._sync_directory(self._folder)

    def change(self, step: Step) -> None:
        """Do one step, durably. Raises: StorageError: it is undone, or a new plan does it again."""
        if step.action == WRITE:
            file = self._files.add(step.path)
            # Also where a file was cut short, and where its space was given back.
            file.reserve(step.at_bytes, len(step.data))
            file.write(step.at_bytes, step.data)
            self._finish(file)
            return
        if step.action == REPLACE:
            self._replace(step)
        else:
            self._call(step.path, "remove", partial(self._backend.remove, step.path))
        self._sync_directory(self._plan.path)

    def _replace(self, step: Step) -> None:
        new_path = os.path.join(self._plan.path, _NEW_CURSORS_NAME)
        names = self._call(self._plan.path, "list", partial(self._backend.list, self._plan.path))
        if _NEW_CURSORS_NAME in names:
            # Left by a repair that was interrupted.
            self._call(new_path, "remove", partial(self._backend.remove, new_path))
        file = self._create(new_path, len(step.data))
        file.write(0, step.data)
        self._finish(file)
        self._call(step.path, "rename", partial(self._backend.rename, new_path, step.path))
