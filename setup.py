"""The compiled modules of walrus-core and the switches around it; all else is in pyproject.toml.

WALRUS_DISABLE_EXT=1   build the pure wheel (py3-none-any)
WALRUS_REQUIRE_EXT=1   a compiled module that cannot be built is an error (CI and released wheels)
WALRUS_SANITIZE=1      with AddressSanitizer and UndefinedBehaviorSanitizer, for `tox -e sanitize` alone
none of these          try; without a compiler say so loudly and make the pure wheel: complete, but slow

A failed build leaves no module behind and a wheel that says what is in it (py3-none-any): the two
compiled modules go together, and a wheel of one platform without them would be taken for a fast one.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = ("walrus_core/_hot_c.pyx", "walrus_core/_front_c.pyx")
DISABLED = os.environ.get("WALRUS_DISABLE_EXT") == "1"
SANITIZED = os.environ.get("WALRUS_SANITIZE") == "1"
SANITIZERS = "-fsanitize=address,undefined"
REQUIRED = os.environ.get("WALRUS_REQUIRE_EXT") == "1"


class BuildExt(build_ext):
    """Build all the modules, or none and say loudly that the slow twin is what will run."""

    def finalize_options(self):
        super().finalize_options()
        self.cython_c_in_temp = True  # the generated C file stays out of the source tree

    def build_extensions(self):
        try:
            super().build_extensions()
        except Exception as error:
            if REQUIRED:
                raise
            for ext in self.extensions:
                Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            self.extensions = []
            self.distribution.ext_modules = []
            rule = "*" * 78
            print(
                f"{rule}\nWARNING: walrus-core could not be compiled: {error}\n"
                "It will run on its pure-Python twin, which is many times slower.\n"
                f"Install a C compiler and the Python headers, then install again.\n{rule}",
                file=sys.stderr,
            )

    def build_extension(self, ext):
        # No -march: CPU features are chosen at run time, so that one wheel serves every machine.
        msvc = self.compiler.compiler_type == "msvc"
        ext.extra_compile_args = ["/O2"] if msvc else ["-O3"]
        if SANITIZED:
            # Python is built with -fwrapv, under which an overflow of a signed number is none.
            ext.extra_compile_args = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv", SANITIZERS]
            ext.extra_link_args = [SANITIZERS]
        super().build_extension(ext)


class BdistWheel(bdist_wheel):
    """Name the wheel after what was built, not after what was tried."""

    def run(self):
        self.run_command("build")
        if not self.distribution.has_ext_modules():
            self.root_is_pure = True
        super().run()


def extensions():
    if DISABLED and REQUIRED:
        raise SystemExit("WALRUS_DISABLE_EXT=1 and WALRUS_REQUIRE_EXT=1 contradict each other")
    if DISABLED:
        return []
    depends = [
        str(path) for pattern in ("*.h", "*.pxd", "*.pxi") for path in Path("walrus_core").glob(pattern)
    ]
    options = {"include_dirs": ["walrus_core"], "depends": depends}
    return [Extension(source[: -len(".pyx")].replace("/", "."), [source], **options) for source in SOURCES]


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel})
