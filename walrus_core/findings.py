"""What looking at a log directory finds, as plain descriptions: ``Finding`` and ``VerifyReport``."""

from __future__ import annotations

from typing import Optional

from attrs import field, frozen

DAMAGE = "damage"
"""Bytes that no crash explains."""
TORN = "torn"
"""What a crash leaves and the next open clears away."""
UNREADABLE = "unreadable"
"""The system gave an error instead of bytes."""
NOTE = "note"
"""No fault, but somebody may want to know: foreign and quarantined things, copies set aside."""

OPEN = "opening the log"
REPAIR = "walrus repair"
RESET = "walrus repair --reset-cursors"
REBUILD = "walrus repair --rebuild-cursors"


@frozen(kw_only=True)
class Finding:
    """One thing found: what, where, and which entries ``[first_offset, end_offset)`` it costs.

    ``topic`` and the offsets are None where nothing is known of them or no entry is lost; a damaged
    copy of something whose other copy is sound costs none.
    """

    category: str
    kind: str
    path: str
    at_bytes: int = 0
    topic: Optional[str] = None
    cursor: Optional[str] = None
    first_offset: Optional[int] = None
    end_offset: Optional[int] = None
    remedy: Optional[str] = None
    """What mends it; None where nothing does."""
    mended: Optional[bytes] = field(default=None, repr=False)
    """The bytes that belong at ``at_bytes``, where a sound copy tells them."""

    @property
    def place(self) -> tuple[str, str, int]:
        """What makes two findings of two looks the same one."""
        return self.kind, self.path, self.at_bytes


@frozen(kw_only=True)
class TopicCount:
    """What of one topic was read and found sound."""

    name: str
    first_offset: int
    next_offset: int
    block_count: int
    entry_count: int
    payload_bytes: int


@frozen(kw_only=True)
class VerifyReport:
    """All that was found in a log directory."""

    path: str
    live: bool
    """Looked at beside a writer: unsealed ends were left out."""
    closed_cleanly: bool
    findings: tuple[Finding, ...] = ()
    topics: tuple[TopicCount, ...] = ()
    segment_count: int = 0
    block_count: int = 0
    checked_bytes: int = 0
    """Bytes of blocks that were read whole."""
    duration_s: float = 0.0

    def of(self, category: str) -> list[Finding]:
        """Return the findings of one category, in order of file and place."""
        found = [finding for finding in self.findings if finding.category == category]
        return sorted(found, key=lambda finding: (finding.path, finding.at_bytes, finding.kind))

    @property
    def is_sound(self) -> bool:
        """Nothing is damaged and everything could be read; a torn tail is no damage."""
        return not any(finding.category in (DAMAGE, UNREADABLE) for finding in self.findings)
