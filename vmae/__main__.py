"""Runs the command line: `python -m vmae`."""

from vmae.cli.main import main

raise SystemExit(main())
