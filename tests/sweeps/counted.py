"""What the sweep of failing calls fails: errors, and how much of a write they leave."""

from __future__ import annotations

import errno

SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE)
NUMBERS = (errno.EIO, *SPACE, errno.EINTR)
WRITES = ("write", "write_many")
PARTS = ((0.0, 0), (0.0, 1), (0.5, 0), (1.0, -1), (1.0, 0))
"""Of a failing write: (share written, bytes more): nothing, one byte, half, all but one byte, all."""
SYNCS = ("sync", "sync_many", "sync_dir", "close")
"""Calls whose failure says that what was written may be lost."""
CHANGES = (*WRITES, "reserve", "discard")
