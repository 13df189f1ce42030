from __future__ import annotations

import sys

from kaos_pipelines.fetch.main import main

sys.exit(main())
