from __future__ import annotations

import sys

from kaos_pipelines.build.main import main

sys.exit(main())
