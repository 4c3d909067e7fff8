"""The backend ``mmap`` of the walrus log engine; ``plugin`` registers it, ``backend`` is it."""
