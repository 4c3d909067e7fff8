"""The compiled modules of walrus-core and the switches around it; all else is in pyproject.toml.

WALRUS_DISABLE_EXT=1   build the pure wheel (py3-none-any)
WALRUS_REQUIRE_EXT=1   a compiled module that cannot be built is an error (CI and released wheels)
WALRUS_SANITIZE=1      with AddressSanitizer and UndefinedBehaviorSanitizer, for `tox -e sanitize` alone
none of these          try; without a compiler warn and install the pure twin, which is complete but slow
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = ("walrus_core/_hot_c.pyx", "walrus_core/_front_c.pyx")
DISABLED = os.environ.get("WALRUS_DISABLE_EXT") == "1"
SANITIZED = os.environ.get("WALRUS_SANITIZE") == "1"
SANITIZERS = "-fsanitize=address,undefined"
REQUIRED = os.environ.get("WALRUS_REQUIRE_EXT") == "1"


class BuildExt(build_ext):
    """Build the module, or say loudly that the slow twin is what will run."""

    def finalize_options(self):
        super().finalize_options()
        self.cython_c_in_temp = True  # the generated C file stays out of the source tree

    def build_extension(self, ext):
        # No -march: CPU features are chosen at run time, so that one wheel serves every machine.
        msvc = self.compiler.compiler_type == "msvc"
        ext.extra_compile_args = ["/O2"] if msvc else ["-O3"]
        if SANITIZED:
            # Python is built with -fwrapv, under which an overflow of a signed number is none.
            ext.extra_compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", SANITIZERS]
            ext.extra_link_args = [SANITIZERS]
        try:
            super().build_extension(ext)
        except Exception as error:
            if REQUIRED:
                raise
            rule = "*" * 78
            print(
                f"{rule}\nWARNING: {ext.name} could not be compiled: {error}\n"
                "walrus-core will run on its pure-Python twin, which is many times slower.\n"
                f"Install a C compiler and the Python headers, then install again.\n{rule}",
                file=sys.stderr,
            )


def extensions():
    if DISABLED and REQUIRED:
        raise SystemExit("WALRUS_DISABLE_EXT=1 and WALRUS_REQUIRE_EXT=1 contradict each other")
    if DISABLED:
        return []
    if not REQUIRED and not all(Path(source).exists() for source in SOURCES):
        return []
    depends = [
        str(path) for pattern in ("*.h", "*.pxd", "*.pxi") for path in Path("walrus_core").glob(pattern)
    ]
    options = {"include_dirs": ["walrus_core"], "depends": depends, "optional": not REQUIRED}
    return [Extension(source[: -len(".pyx")].replace("/", "."), [source], **options) for source in SOURCES]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
