"""LineSource against ``readlines`` of the concatenated files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walrus_core.cli import lines as lines_module
from walrus_core.cli.interrupts import Interrupts
from walrus_core.cli.lines import LineSource
from walrus_core.errors import EntryTooLargeError, StorageError


def make_files(folder: Path, contents: list[bytes]) -> list[str]:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"file{number}"
        path.write_bytes(content)
        paths.append(str(path))
    return paths


def take_all(
    source: LineSource,
    count: int = 7,
    bytes_max: int = 1 << 20,
    into: list[bytes] | None = None,
    interrupts: Interrupts | None = None,
) -> list[bytes]:
    taken = [] if into is None else into
    while batch := source.take(count, bytes_max, interrupts):
        assert len(batch) <= count
        taken += batch
    return taken


def oracle(contents: list[bytes]) -> list[bytes]:
    """Return the lines, told byte by byte."""
    found: list[bytes] = []
    for content in contents:
        line = b""
        for byte in content:
            line += bytes([byte])
            if byte == 10:
                found.append(line)
                line = b""
        if line:
            found.append(line)
    return found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.lists(st.text("ab\n\r\0\x0b\x85\u2028", max_size=20).map(str.encode), max_size=5),
    chunk_bytes=st.integers(1, 9),
    count=st.integers(1, 4),
    bytes_max=st.integers(1, 12),
    interrupts=st.sampled_from([None, Interrupts(keeps=False), Interrupts(keeps=True)]),
)
def test_lines_are_those_of_the_files_whatever_the_chunks(
    tmp_path, contents, chunk_bytes, count, bytes_max, interrupts
):
    paths = make_files(tmp_path, contents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "CHUNK_BYTES", chunk_bytes)
        with LineSource(paths, 1000) as source:
            taken = take_all(source, count, bytes_max, interrupts=interrupts)
    assert taken == oracle(contents)
    assert source.line_count == len(taken)
    assert source.byte_count == sum(map(len, contents))


def test_a_batch_ends_with_the_line_that_brings_it_to_its_bytes(tmp_path):
    (path,) = make_files(tmp_path, [b"aaa\nbbb\nccc\n"])
    with LineSource([path], 1000) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "CHUNK_BYTES", 4)
        assert source.take(10, 5) == [b"aaa\n", b"bbb\n"]
        assert source.take(10, 5) == [b"ccc\n"]


def test_place_names_file_and_line_past_empty_files(tmp_path):
    paths = make_files(tmp_path, [b"", b"a\nb", b"", b"", b"c\n", b""])
    with LineSource(paths, 1000) as source:
        take_all(source)
        assert source.place(0) == f"{paths[1]}, line 1"
        assert source.place(1) == f"{paths[1]}, line 2"
        assert source.place(2) == f"{paths[4]}, line 1"


@pytest.mark.parametrize("chunk_bytes", [1, 3, 5, 6, 1000])
@pytest.mark.parametrize("too_long", [b"12345\n", b"123456", b"1234567\nmore\n"])
def test_a_line_too_long_is_named_after_the_lines_before_it(tmp_path, monkeypatch, chunk_bytes, too_long):
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", chunk_bytes)
    paths = make_files(tmp_path, [b"x\n", b"ab\n1234\n" + too_long])
    taken: list[bytes] = []
    with LineSource(paths, 5) as source:
        with pytest.raises(EntryTooLargeError) as caught:
            take_all(source, into=taken)
        assert source.line_count == 3
    assert taken == [b"x\n", b"ab\n", b"1234\n"]
    length_bytes = len(too_long.removesuffix(b"more\n"))
    assert str(caught.value).startswith(f"{paths[1]}, line 3: entry of {length_bytes} bytes")
    assert (caught.value.length_bytes, caught.value.limit_bytes) == (length_bytes, 5)


def test_a_line_of_just_the_limit_is_taken(tmp_path):
    (path,) = make_files(tmp_path, [b"1234\n12345"])
    with LineSource([path], 5) as source:
        assert take_all(source) == [b"1234\n", b"12345"]


def test_a_line_too_long_is_measured_not_kept(tmp_path):
    (path,) = make_files(tmp_path, [b"x" * (24 << 20)])
    with LineSource([path], 1 << 20) as source:
        tracemalloc.start()
        try:
            with pytest.raises(EntryTooLargeError) as caught:
                source.take(1, 1)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert caught.value.length_bytes == 24 << 20
    assert peak_bytes < 4 << 20


def test_a_file_that_is_gone_is_a_storage_error(tmp_path):
    source = LineSource([str(tmp_path / "gone")], 5)
    with pytest.raises(StorageError, match="gone"):
        source.take(1, 1)


def test_a_folder_is_a_storage_error(tmp_path):
    source = LineSource([str(tmp_path)], 5)
    with pytest.raises(StorageError, match="read"):
        source.take(1, 1)
