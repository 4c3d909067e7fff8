"""All seeded bugs. One more is one more ``Bug`` in the table of its rooms."""

from __future__ import annotations

from . import life_bugs, log_bugs, plugin_bugs, read_bugs

BUGS = [*log_bugs.BUGS, *life_bugs.BUGS, *read_bugs.BUGS, *plugin_bugs.BUGS]
BY_NAME = {bug.name: bug for bug in BUGS}
