"""Used by every folder above it: atomic file writing, and the progress of a run."""
