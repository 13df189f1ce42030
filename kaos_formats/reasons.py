"""What the engine adds to a gRPC status, where the status alone does not tell one refusal from another.

It is sent as trailing metadata, which other clients of the engine do not notice; a pachd sends none.
"""

from __future__ import annotations

KEY = "kaos-error"

DISK_FULL = "disk_full"
TOO_MANY_CALLS = "too_many_calls"
NEVER_FITS = "never_fits"
COMMIT_FINISHED = "commit_finished"
IMAGE_MISSING = "image_missing"
CHANGED = "changed"
NO_HANDOVER = "no_handover"
