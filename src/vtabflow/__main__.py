"""`python -m vtabflow`: the command without an installation."""

from vtabflow.cli import main

raise SystemExit(main())
