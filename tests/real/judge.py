"""The oracle of the crash tests. This is the only place here that says where it lives."""

from __future__ import annotations

from walrus_core.testing import CursorModel, TopicModel

__all__ = ["CursorModel", "TopicModel"]
