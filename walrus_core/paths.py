"""Names of files and directories: format and parse, nothing else."""

from __future__ import annotations

import os
import re
from typing import Optional

from walrus_core import format as fmt
from walrus_core.errors import ConfigError, storage_error

DATA_DIR_DEFAULT = "wal_files"
CONFIG_NAME = "walrus.toml"
_KEY_KEPT = 40
_SEGMENT_NAME = re.compile(r"([0-9]{20})" + re.escape(fmt.SEGMENT_SUFFIX))
_FREE_NAME = re.compile(r"[0-9]{20}" + re.escape(fmt.FREE_SUFFIX))


def segment_name(sequence: int) -> str:
    """Return the file name of the segment with this sequence."""
    return f"{sequence:020d}{fmt.SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> Optional[int]:
    """Return the sequence of a segment file's name, or None for any other name."""
    match = _SEGMENT_NAME.fullmatch(name)
    if match is None or not name.isascii():
        return None
    sequence = int(match[1])
    return sequence if 1 <= sequence <= fmt.NUMBER_MAX else None


def free_name(sequence: int) -> str:
    """Return the name of a segment file that is not one yet."""
    return f"{sequence:020d}{fmt.FREE_SUFFIX}"


def is_free_name(name: str) -> bool:
    """True for a segment file that was set aside for reuse and never became one again."""
    return _FREE_NAME.fullmatch(name) is not None and name.isascii()


def cut_name(segment_sequence: int, slot: int, block_sequence: int) -> str:
    """Return the name of the copy of a block that recovery cut."""
    return f"{segment_sequence:020d}-{slot:05d}-{block_sequence}{fmt.CUT_SUFFIX}"


def is_own_name(name: str) -> bool:
    """True for files that a log itself puts into its directory, besides segments."""
    return name in (fmt.CURSORS_NAME, fmt.LOCK_NAME, CONFIG_NAME) or name.endswith(fmt.CUT_SUFFIX)


def key_directory(key: str) -> str:
    """Return the directory name of a namespace: readable, and different for different keys.

    ``ns-<sanitised>-<hash>``: the hash (BLAKE2b, 128 bits, of the key's UTF-8) keeps keys apart
    that look alike once sanitised or differ in case only; the prefix keeps "." and ".." out.

    Raises: ConfigError: the key is no str or cannot be encoded.
    """
    if not isinstance(key, str):
        raise ConfigError(option="key", reason=f"must be a str, not {type(key).__name__}")
    import hashlib  # with all of OpenSSL, which a log without a namespace does not need

    try:
        digest = hashlib.blake2b(key.encode("utf-8"), digest_size=16).hexdigest()
    except UnicodeEncodeError:
        raise ConfigError(option="key", reason="lone surrogates cannot be encoded as UTF-8") from None
    sanitised = re.sub(r"[^A-Za-z0-9._-]", "_", key)[:_KEY_KEPT]
    return f"ns-{sanitised}-{digest}"


def absolute(path: str) -> str:
    """Return a directory's path as it stays whatever becomes the current one later.

    Raises: StorageError: there is no current directory.
    """
    if os.path.isabs(path):
        return path
    try:
        # Where a parent is a link, ".." behind it is not what goes away with it: only Windows says so.
        has_parent = os.pardir in path.split(os.sep) and os.name != "nt"
        return os.path.join(os.getcwd(), path) if has_parent else os.path.abspath(path)
    except OSError as error:
        raise storage_error(error, path, "find the current directory of") from error


def default_data_dir() -> str:
    """Return ``$WALRUS_DATA_DIR``, or ``wal_files`` in the current directory."""
    return os.environ.get("WALRUS_DATA_DIR") or DATA_DIR_DEFAULT
