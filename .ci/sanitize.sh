#!/usr/bin/env bash
# Run tests on compiled modules that were built with WALRUS_SANITIZE=1 (`tox -e sanitize` does both).
#
#   .ci/sanitize.sh [PYTEST ARGUMENTS...]
#
# A finding ends the process with a report: of memory by AddressSanitizer, of shifts, overflows and
# alignment by UndefinedBehaviorSanitizer. Leaks are not looked for: the interpreter keeps what it likes.
# What cannot run here is skipped by name: tests ask for WALRUS_SANITIZED.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
compiler=${CC:-gcc}
runtime=$("$compiler" -print-file-name=libasan.so)
[[ $runtime == */* ]] || { echo "$compiler has no AddressSanitizer (libasan.so)" >&2; exit 1; }
export WALRUS_SANITIZED=1 WALRUS_FUZZ_SECONDS=${WALRUS_FUZZ_SECONDS:-10} PYTHONMALLOC=malloc
# Memory errors go into files, for the tests that catch what children write; undefined behaviour can only be
# told on standard error, which pytest must leave alone for that.
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1:log_path=$reports/report
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
(($#)) || set -- tests/unit tests/api tests/fuzz plugins/walrus_fd/tests plugins/walrus_mmap/tests
# A build without them would be clean whatever it does.
python - <<'PYTHON'
import importlib.util
import sys
from pathlib import Path

sys.path.remove("")  # what is installed, not the source tree
for name in ("walrus_core._hot_c", "walrus_core._front_c"):
    found = importlib.util.find_spec(name)
    if found is None or b"__asan_init" not in Path(found.origin).read_bytes():
        sys.exit(f"{name} was not built with WALRUS_SANITIZE=1")
PYTHON
status=0
LD_PRELOAD="$runtime $("$compiler" -print-file-name=libubsan.so)" pytest -q --capture=sys -p no:cacheprovider "$@" || status=$?
if compgen -G "$reports/report*" >/dev/null; then
    cat "$reports"/report*
    exit 1
fi
exit "$status"
