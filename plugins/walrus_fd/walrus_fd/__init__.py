"""Backend ``fd`` of the walrus log engine; ``plugin`` registers it, ``backend`` is it."""

__version__ = "0.1.0"
