"""The pure twin of the hot path; ``walrus_core/_hot_py.py`` is its front."""
