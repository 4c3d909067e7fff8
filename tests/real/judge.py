"""The oracle of the crash tests. This is the only place that says where it lives."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[1] / "crash" / "oracle.py"
_spec = importlib.util.spec_from_file_location("walrus_oracle", _PATH)
assert _spec is not None and _spec.loader is not None
_oracle = importlib.util.module_from_spec(_spec)
sys.modules.setdefault("walrus_oracle", _oracle)
_spec.loader.exec_module(_oracle)

TopicModel = _oracle.TopicModel
CursorModel = _oracle.CursorModel
