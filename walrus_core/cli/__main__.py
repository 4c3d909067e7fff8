"""``python -m walrus_core.cli``: the same as ``walrus``."""

from walrus_core.cli import main

main()
