# Sourced by ./quickstart and ./check: virtual environments that are made once and renewed when the
# sources they were made from have changed. Expects $root, the project's folder.

say() { printf '%s\n' "$@"; }

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

# make_venv FOLDER: create the virtual environment unless it is there and works.
make_venv() {
    local folder=$1 python=${PYTHON:-python3}
    if "$folder/bin/python" -c 'import pip' 2>/dev/null; then
        return
    fi
    command -v "$python" >/dev/null || fail "$python is not installed (Debian: apt install python3 python3-venv)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$("$python" --version) is too old: 3.10 or later is needed (set PYTHON=/path/to/python3)"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments (Debian: apt install python3-venv)"
    say "Making ${folder##*/} with $("$python" --version)"
    rm -rf "$folder"
    "$python" -m venv "$folder"
    printf '*\n' >"$folder/.gitignore"
}

# quietly LOGFILE COMMAND...: run it with its output in the file; show the end of it on failure.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        return 1
    fi
}

# fingerprint: a checksum over every file that goes into the installed packages.
fingerprint() {
    (
        cd "$root"
        find pyproject.toml setup.py README.md LICENSE walrus_core plugins -type f \
            \( -name '*.py' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.pyi' -o -name '*.h' \
            -o -name '*.toml' -o -name 'py.typed' -o -name '*.md' -o -name LICENSE \) \
            -not -path '*/tests/*' -not -path '*/build/*' -print0 | sort -z | xargs -0 sha256sum | sha256sum
    )
}

# install_project FOLDER EXTRAS: install the core with these extras and both backends, with
# io_uring where liburing can be compiled. Does nothing when what is installed is up to date.
install_project() {
    local folder=$1 extras=$2 stamp=$1/.installed-from now log=$1/install.log
    now="$(fingerprint) $extras ${WALRUS_REQUIRE_EXT:-0}"
    if [[ -f $stamp && $(<"$stamp") == "$now" ]]; then
        return
    fi
    rm -f "$stamp"
    rm -rf "$root/build" # else modules that are gone from the sources would be installed again
    say "Installing walrus-core[$extras], walrus-fd and walrus-mmap (about a minute the first time)"
    quietly "$log" "$folder/bin/pip" install --disable-pip-version-check \
        "$root[$extras]" "$root/plugins/walrus_fd" "$root/plugins/walrus_mmap" ||
        fail "The installation failed; all of its output is in $log"
    if [[ $extras == *test* ]]; then
        quietly "$log" "$folder/bin/pip" install --disable-pip-version-check "$root/plugins/walrus_prometheus" ||
            fail "walrus-prometheus could not be installed; all of its output is in $log"
    fi
    install_liburing "$folder"
    printf '%s' "$now" >"$stamp"
}

# install_liburing FOLDER: io_uring for walrus-fd. It is compiled from source, so it may not work
# out, and the backend is complete without it.
install_liburing() {
    local folder=$1 log=$1/install-liburing.log
    if [[ $(uname -s) != Linux ]] || "$folder/bin/pip" show --quiet liburing 2>/dev/null; then
        return
    fi
    say "Compiling liburing, for io_uring in walrus-fd (2 to 3 minutes, once)"
    quietly "$log" "$folder/bin/pip" install --disable-pip-version-check "$root/plugins/walrus_fd[uring]" ||
        say "liburing could not be compiled: walrus-fd works without io_uring (output in $log)"
}
