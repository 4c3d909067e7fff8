"""Sectors of 512 bytes, each encrypted by itself, and the header that says with which keys.

AES-256-XTS with the sector's number as tweak, and keys of the file's own: derived from the key that
the user gave and 32 random bytes in the file's header. A sector of nothing but zeros on the medium
stands for zeros: nobody wrote it, or it was given back. (That a written sector encrypts to 512 zeros
is as likely as guessing 512 bytes.)
"""

from __future__ import annotations

import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SECTOR_BYTES = 512
KEY_BYTES = 32
SALT_BYTES = 32
ZEROS = bytes(SECTOR_BYTES)

MAGIC = b"WSEALED1"
HEADER_AREA_BYTES = 4096
HEADER_PLACES = (0, 2048)
"""The header stands at both, so that one bad sector does not cost a file."""
_HEADER = struct.Struct("<8sII32s")
_TAG_BYTES = 32


class WrongKey(Exception):
    """A header that is whole was not made with this key."""


class Sectors:
    """Encrypts and decrypts whole sectors of one file."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        """``key`` is the user's, ``salt`` the file's."""
        derived = HKDF(SHA256(), 64 + KEY_BYTES, salt=salt, info=b"walrus-sealed 1").derive(key)
        self._salt = salt
        self._cipher_key = AES(derived[:64])
        self._header_key = derived[64:]

    def _cipher(self, number: int) -> Cipher[XTS]:
        return Cipher(self._cipher_key, XTS(number.to_bytes(16, "little")))

    def seal(self, first: int, plain: bytes) -> bytes:
        """Return whole sectors from sector number ``first`` on as they stand on the medium."""
        sealed = []
        for place in range(0, len(plain), SECTOR_BYTES):
            encryptor = self._cipher(first + place // SECTOR_BYTES).encryptor()
            sealed.append(encryptor.update(plain[place : place + SECTOR_BYTES]))
        return b"".join(sealed)

    def unseal(self, first: int, sealed: bytes) -> bytes:
        """Return whole sectors from sector number ``first`` on as they were written. Raises nothing: what
        was damaged on the medium becomes other bytes, 16 for each that changed, as if written so."""
        plain = []
        for place in range(0, len(sealed), SECTOR_BYTES):
            sector = sealed[place : place + SECTOR_BYTES]
            if sector != ZEROS:
                sector = self._cipher(first + place // SECTOR_BYTES).decryptor().update(sector)
            plain.append(sector)
        return b"".join(plain)

    # --- the header -------------------------------------------------------------------------

    def header(self) -> bytes:
        """Return the sector that stands at each of ``HEADER_PLACES``."""
        body = _HEADER.pack(MAGIC, 1, 0, self._salt)
        return (body + hmac.digest(self._header_key, body, "sha256")).ljust(SECTOR_BYTES, b"\0")

    @classmethod
    def of_headers(cls, key: bytes, headers: list[bytes]) -> Sectors | None:
        """Return the sectors that a file's headers describe; None where no header was ever written.

        Raises: WrongKey. ValueError: every header is damaged.
        """
        looks_whole = False
        for header in headers:
            magic, version, zero, salt = _HEADER.unpack_from(header)
            if (magic, version, zero) != (MAGIC, 1, 0):
                continue
            found = cls(key, salt)
            if hmac.compare_digest(found.header(), header):
                return found
            looks_whole = True
        if all(header == ZEROS for header in headers):
            return None
        if looks_whole:
            raise WrongKey
        raise ValueError("every copy of the header is damaged")
