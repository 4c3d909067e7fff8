"""Build, install and test every project under docs/examples, as its author would, in this environment.

    python .ci/examples.py [NAME...]

The core and its plugins are installed already, from wheels; each example is installed from a wheel of its
own, and its tests run in its own folder. A folder without pyproject.toml is no project: its programs run.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples"


def run(command: list[str], folder: Path) -> bool:
    """Run a command in a folder; tell whether it ended well."""
    print(f"+ {' '.join(command)}   (in {folder.name})", flush=True)
    return subprocess.run(command, cwd=folder).returncode == 0


def check(folder: Path) -> bool:
    """Install and test one example."""
    if not (folder / "pyproject.toml").is_file():
        with tempfile.TemporaryDirectory() as place:
            return all(
                [run([sys.executable, str(path)], Path(place)) for path in sorted(folder.glob("*.py"))]
            )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # With what it depends on; the core and its plugins are there, so that pip looks for them nowhere.
    installed = run([*pip, str(folder)], folder)
    return installed and run(["pytest", "-q", "-p", "no:cacheprovider", "."], folder)


def main() -> None:
    """Check the examples named, or all; end with an error where one fails, or where there is none."""
    wanted = sys.argv[1:]
    folders = [
        path for path in sorted(EXAMPLES.glob("*")) if path.is_dir() and not path.name.startswith((".", "_"))
    ]
    folders = [path for path in folders if not wanted or path.name in wanted]
    if not folders:
        sys.exit(f"no examples in {EXAMPLES}")
    failed = [folder.name for folder in folders if not check(folder)]
    print(f"{len(folders) - len(failed)} of {len(folders)} examples pass")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
