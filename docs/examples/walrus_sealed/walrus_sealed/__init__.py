"""An encrypting backend around another backend; see ``backend.py``."""
