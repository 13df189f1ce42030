"""What is done ahead of the first deploy, in a process of its own: here others have used the classes."""

from __future__ import annotations

import subprocess
import sys


def test_the_classes_of_a_deploy_are_ready() -> None:
    program = (
        "from pachyderm_sdk.api import pfs, pps\n"
        "from kaos_backend.engine.facade.pps.ahead import get_ready\n"
        "of = (pfs.CommitInfo, pps.CreatePipelineRequest, pps.Input, pps.PfsInput, pps.Transform)\n"
        "assert not any(hasattr(one, '_betterproto_meta') for one in of)\n"
        "get_ready()\n"
        "assert all(hasattr(one, '_betterproto_meta') for one in of)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
