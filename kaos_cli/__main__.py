"""``python -m kaos_cli`` is ``kaos``."""

from kaos_cli.main import main

main()
