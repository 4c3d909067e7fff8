"""Targets ``names`` and ``config``: names of topics and cursors, and configuration files."""

from __future__ import annotations

import os
import tempfile

from walrus_core import Walrus
from walrus_core import format as fmt
from walrus_core.builder import WalrusBuilder
from walrus_core.config import encode_cursor, encode_topic
from walrus_core.errors import ConfigError, InvalidTopicError, UnknownBackendError
from walrus_core.memory import MemoryBackend, MemoryStore
from walrus_core.paths import is_free_name, is_own_name, key_directory, parse_segment_name, segment_name

from .bytesource import Source

ENCODINGS = (
    ("utf-8", "surrogatepass"),
    ("utf-8", "surrogateescape"),
    ("utf-16-le", "surrogatepass"),
    ("latin-1", "strict"),
)


def run(data: bytes) -> None:
    """Use the bytes as a name of everything that has a name."""
    source = Source(data)
    encoding, errors = source.pick(ENCODINGS)
    repeat = 1 + source.byte() % 16 * 16
    try:
        name = source.rest().decode(encoding, errors) * repeat
    except UnicodeDecodeError:
        return
    for encode, limit in (
        (encode_topic, fmt.TOPIC_NAME_MAX_BYTES),
        (encode_cursor, fmt.CURSOR_NAME_MAX_BYTES),
    ):
        try:
            encoded = encode(name)
        except InvalidTopicError as error:
            str(error)
            assert not _is_valid(name, limit), name
        else:
            assert _is_valid(name, limit) and encoded.decode("utf-8") == name
    try:
        directory = key_directory(name)
    except ConfigError:
        directory = "ns-"
    assert os.path.basename(directory) == directory and directory.startswith("ns-") and len(directory) < 100
    sequence = parse_segment_name(name)
    assert sequence is None or (
        segment_name(sequence) == name and not is_free_name(name) and not is_own_name(name)
    )
    _use(name)


def _is_valid(name: str, limit: int) -> bool:
    try:
        return 0 < len(name.encode("utf-8")) <= limit and "\0" not in name
    except UnicodeEncodeError:
        return False


def _use(name: str) -> None:
    """Append to a topic and move a cursor of this name, where that is one, and find both again."""
    store = MemoryStore()
    with Walrus("log", backend=MemoryBackend(store=store), block_size=16384, blocks_per_segment=2) as wal:
        try:
            assert wal.append_for_topic(name, b"a") == 0
        except InvalidTopicError:
            assert wal.topics() == []
            return
        cursor = name if len(name.encode()) <= fmt.CURSOR_NAME_MAX_BYTES else "c"
        wal.read_next(name, cursor=cursor)
    assert {os.path.dirname(path) for path in store.files} == {"log"}
    with Walrus("log", backend=MemoryBackend(store=store)) as wal:
        assert wal.topics() == [name] and wal.cursor_offset(name, cursor) == 1
        assert wal.cursor_offset(name) == (1 if cursor == "default" else 0)


def run_config(data: bytes) -> None:
    """Use the bytes as walrus.toml: options, or an error that says whose fault it is."""
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "walrus.toml"), "wb") as file:
            file.write(data)
        try:
            options = WalrusBuilder().data_dir(directory).options()
        except (ConfigError, UnknownBackendError) as error:
            message = str(error)
        else:
            message = ""
            assert fmt.BLOCK_SIZE_MIN <= options.block_size_bytes <= fmt.BLOCK_SIZE_MAX
        assert len(message) < 4000
