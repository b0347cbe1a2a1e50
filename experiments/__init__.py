"""Binaries, each a few flags, a call of the library and files in a run."""
