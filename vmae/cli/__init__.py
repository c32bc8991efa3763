"""The command line: `vmae`, or `python -m vmae`."""

from vmae.cli.main import main
