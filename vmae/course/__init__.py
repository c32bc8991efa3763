"""What makes a course of the package: `checks` of the exercises, the papers' claims, progress.

Nothing is imported here: `check_env` must also run where a package is broken.
"""
