"""The backend ``sealed``: what another backend keeps, encrypted with AES-256-XTS.

It protects what lies on a disk that is lost, stolen or thrown away. What it does not do stands in
the README; the core's checksums, which are encrypted with the rest, find damage as before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Optional, Union, cast

from attrs import evolve

from walrus_core.backend import Backend, Capabilities, CapableBackend, CapableFile, SegmentFile
from walrus_core.errors import ConfigError
from walrus_core.plugins import load_backend
from walrus_sealed.file import SealedFile, inner_size
from walrus_sealed.sectors import KEY_BYTES

KEY_VARIABLE = "WALRUS_SEALED_KEY"


class SealedBackend:
    """Encrypts every file of the backend inside."""

    name = "sealed"
    api = 1

    def __init__(
        self,
        *,
        durable_writes: bool = False,
        inner: Union[str, Backend] = "fd",
        inner_options: Optional[dict[str, Any]] = None,
        key_file: Optional[str] = None,
        key: Optional[bytes] = None,
    ) -> None:
        """Make a backend around ``inner``: a name, with options of its own, or an object.

        The key is 32 bytes: ``key``, else the 64 hexadecimal digits in ``key_file``, else those in the
        variable WALRUS_SEALED_KEY. Raises: ConfigError; PluginError: the backend inside.
        """
        if inner == self.name:
            raise ConfigError(
                option="inner", reason="a sealed backend in a sealed backend protects nothing more"
            )
        self._key = find_key(key, key_file)
        if isinstance(inner, str):
            inner = load_backend(inner, options=inner_options or {}, durable_writes=durable_writes)
        self.inner = cast(CapableBackend, inner)

    @property
    def capabilities(self) -> Capabilities:
        """Those of the backend inside, less every way to the bytes that does not lead through here."""
        return evolve(self.inner.capabilities, vectored=True, memory=False, paging=False, fileno=False)

    # --- files ------------------------------------------------------------------------------

    def create(self, path: str, *, size_bytes: int) -> SealedFile:
        """Create a file of zeros. Raises: OSError; no file is left behind. Cost: one sync, of the header."""
        inner = self.inner.create(path, size_bytes=inner_size(size_bytes))
        try:
            file = self._sealed(inner, path)
            file.write_header()
            return file
        except BaseException:
            inner.close()
            self.inner.remove(path)
            raise

    def open(self, path: str) -> SealedFile:
        """Open an existing file. Raises: OSError: EACCES for a wrong key, EIO for a damaged header."""
        return self._opened(self.inner.open(path), path)

    def open_read_only(self, path: str) -> SealedFile:
        """As ``open``, without the right to write."""
        return self._opened(self.inner.open_read_only(path), path)

    def _opened(self, inner: SegmentFile, path: str) -> SealedFile:
        try:
            return self._sealed(inner, path)
        except BaseException:
            inner.close()
            raise

    def _sealed(self, inner: SegmentFile, path: str) -> SealedFile:
        return SealedFile(cast(CapableFile, inner), path, self._key)

    def sync_many(self, files: Sequence[SegmentFile]) -> None:
        """Have the backend inside sync its files, at once where it can."""
        self.inner.sync_many([cast(SealedFile, file).inner for file in files])

    # --- names ------------------------------------------------------------------------------

    def make_directory(self, path: str) -> None:
        """Create a directory."""
        self.inner.make_directory(path)

    def list(self, directory: str) -> Iterable[str]:
        """Return the names in a directory."""
        return self.inner.list(directory)

    def rename(self, old_path: str, new_path: str) -> None:
        """Rename a file; its keys are in its header and go with it."""
        self.inner.rename(old_path, new_path)

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.inner.remove(path)

    def sync_dir(self, directory: str) -> None:
        """Make names durable."""
        self.inner.sync_dir(directory)

    def close(self) -> None:
        """Close the backend inside."""
        self.inner.close()

    def probe(self) -> dict[str, Any]:
        """Say how it encrypts, and what the backend inside says."""
        return {"cipher": "AES-256-XTS, sectors of 512 bytes", "inner": self.inner.name, **self.inner.probe()}


def find_key(key: Optional[bytes], key_file: Optional[str]) -> bytes:
    """Return the key. Raises: ConfigError: there is none, or it is no key; never says what it is."""
    if key is not None:
        if len(key) != KEY_BYTES:
            raise ConfigError(option="key", reason=f"it has {len(key)} bytes, not {KEY_BYTES}")
        return key
    option, text = "key_file", os.environ.get(KEY_VARIABLE)
    if key_file is not None:
        try:
            with open(key_file, encoding="ascii") as file:
                text = file.read(1000)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(option=option, reason=f"{key_file} cannot be read: {error}") from error
    if not text:
        raise ConfigError(option=option, reason=f"no key: name a key_file, or set {KEY_VARIABLE}")
    try:
        found = bytes.fromhex(text.strip())
    except ValueError:
        found = b""
    if len(found) != KEY_BYTES:
        raise ConfigError(option=option, reason=f"a key is {2 * KEY_BYTES} hexadecimal digits")
    return found
