"""`python -m vmae`."""

from vmae.cli import main

raise SystemExit(main())
