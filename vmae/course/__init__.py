"""The course around the package: `checks` for the exercises, the papers' claims, progress.

Imports nothing, because `check_env` must run even if a package is broken.
"""
