"""Picks the twin of the express way that belongs to the frame code in use; see ``hot.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walrus_core import hot

if TYPE_CHECKING or not hot.COMPILED:
    from walrus_core import _front_py as twin
else:
    from walrus_core import _front_c as twin

Express = twin.Express
Front = twin.Front
Ready = twin.Ready
