"""Used by every folder above it: atomic file writing, the progress of a run, text of messages."""
