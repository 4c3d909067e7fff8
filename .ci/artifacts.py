"""Build the distributions as they are released, and install them into test environments.

    python .ci/artifacts.py build [--into dist] [--pure] [PYTHON...]
    python .ci/artifacts.py install [--extras test,cli] [--liburing] (ext|noext) [PLUGIN...]

``build`` makes the sdist of every distribution and, from the sdists alone and in isolation, the pure wheels
and a compiled wheel for each interpreter (default: the one that runs this; ``--pure``: none). ``install``
puts the core and the plugins named (fd, mmap, ...) into the environment that runs it.

What was built is kept under .tox/artifacts by a checksum of the sources, so that the many environments of
one run compile once per interpreter. The compiled wheel is required: a failed compile ends this.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".tox" / "artifacts"
CORE = "walrus_core"
# What an sdist holds or is made by; tox.ini and the like may change without a new compile.
INGREDIENTS = (CORE, "plugins", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py")
SWITCHES = {"ext": {"WALRUS_REQUIRE_EXT": "1"}, "noext": {"WALRUS_DISABLE_EXT": "1"}}


def run(command: list[str], **environment: str) -> None:
    """Run a command; end this program with its output where it fails."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WALRUS_", "PYTHON"))}
    done = subprocess.run(
        command, env={**clean, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{' '.join(command)}\nended with status {done.returncode}")


def sources() -> list[Path]:
    """Return the files of the repository, as git knows them or would."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return sorted(Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).is_file())


def fingerprint() -> str:
    """Return a checksum of everything that a distribution may be made of."""
    sums = hashlib.sha256()
    for path in sources():
        if path.parts[0] in INGREDIENTS:
            sums.update(f"{path}\0{hashlib.sha256((ROOT / path).read_bytes()).hexdigest()}\0".encode())
    return sums.hexdigest()[:16]


class Artifacts:
    """The distributions of the sources as they are now, each built when it is first asked for."""

    def __init__(self) -> None:
        self.fingerprint = fingerprint()
        self.folder = CACHE / self.fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")

    def distributions(self) -> dict[str, Path]:
        """Return the folder of each distribution, by the name of its package."""
        plugins = {path.parent.name: path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))}
        return {CORE: ROOT, **plugins}

    def sdist(self, name: str) -> Path:
        """Return the sdist, made of a copy that holds nothing but the files of the repository."""
        made = self.folder / "sdist"
        with FileLock(f"{made}-{name}.lock"):
            if not list(made.glob(f"{name}-*.tar.gz")):
                with tempfile.TemporaryDirectory() as copy:
                    for path in sources():
                        target = Path(copy) / path
                        target.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(ROOT / path, target)
                    folder = Path(copy) / self.distributions()[name].relative_to(ROOT)
                    run([sys.executable, "-m", "build", "--sdist", "--outdir", str(made), str(folder)])
        (found,) = made.glob(f"{name}-*.tar.gz")
        return found

    def wheel(self, name: str, mode: str, python: str = sys.executable) -> Path:
        """Return the wheel, built from the sdist; ``mode`` is ext or noext, plugins have only noext."""
        tag = "noext"
        if mode == "ext":
            kind = "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())"
            done = subprocess.run([python, "-c", kind], capture_output=True, check=True, text=True)
            tag = "-".join(["ext", *done.stdout.split()])
        made, source = self.folder / tag, self.sdist(name)
        with FileLock(f"{made}-{name}.lock"):
            if not list(made.glob(f"{name}-*.whl")):
                # No cache of pip: it would hand out the same wheel for every switch.
                command = [python, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir"]
                run([*command, str(made), str(source)], **SWITCHES[mode])
        (found,) = made.glob(f"{name}-*.whl")
        return found


def build(artifacts: Artifacts, into: Path, pythons: list[str]) -> None:
    """Put everything into a folder, which is emptied first."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    for name in artifacts.distributions():
        shutil.copy(artifacts.sdist(name), into)
        shutil.copy(artifacts.wheel(name, "noext"), into)
    for python in pythons:
        shutil.copy(artifacts.wheel(CORE, "ext", python), into)
    for path in sorted(into.iterdir()):
        print(f"{path.stat().st_size:>9}  {path.name}")


def install(artifacts: Artifacts, mode: str, extras: str, plugins: list[str], liburing: bool) -> None:
    """Install into the environment that runs this, unless the same is there already."""
    wanted = f"{artifacts.fingerprint} {mode} {extras} {plugins} {liburing}"
    stamp = Path(sys.prefix) / "walrus-installed"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    wheels = [str(artifacts.wheel(CORE, mode))]
    wheels += [str(artifacts.wheel(f"walrus_{plugin}", "noext")) for plugin in plugins]
    needs = [f"{wheels[0]}[{extras}]" if extras else wheels[0], *wheels[1:]]
    if liburing:
        needs += [f"{wheel}[uring]" for wheel in wheels if Path(wheel).name.startswith("walrus_fd-")]
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    # liburing is compiled, 2 to 3 minutes: who comes second finds the wheel in the cache of pip.
    lock = FileLock(CACHE / f"liburing-{sys.implementation.cache_tag}.lock") if liburing else nullcontext()
    with lock:
        run([*pip, *needs])
    # Of one version, so that pip takes those of older sources for the same.
    run([*pip, "--no-deps", "--force-reinstall", *wheels])
    stamp.write_text(wanted)


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build")
    builder.add_argument("--into", type=Path, default=ROOT / "dist")
    builder.add_argument("--pure", action="store_true")
    builder.add_argument("pythons", nargs="*", metavar="PYTHON")
    installer = commands.add_parser("install")
    installer.add_argument("mode", choices=tuple(SWITCHES))
    installer.add_argument("--extras", default="")
    installer.add_argument("--liburing", action="store_true")
    installer.add_argument("plugins", nargs="*", metavar="PLUGIN")
    given = parser.parse_args()
    artifacts = Artifacts()
    if given.command == "build":
        build(artifacts, given.into.resolve(), [] if given.pure else given.pythons or [sys.executable])
    else:
        install(artifacts, given.mode, given.extras, given.plugins, given.liburing)


if __name__ == "__main__":
    main()
