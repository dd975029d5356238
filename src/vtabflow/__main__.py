from vtabflow.cli import main

raise SystemExit(main())
