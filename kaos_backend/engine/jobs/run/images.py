"""Images of pipelines that are gone: the runtime removes them, at a time of its own."""

from __future__ import annotations

import logging
import threading

from kaos_backend.engine.errors import EngineError, ImageMissing
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.workers.port import Runtime, is_missing

# A worker that was told to end uses its image for another moment.
_TRIES, _RETRY_S = 20, 1.0
_PATIENCE_S = 2.0

log = logging.getLogger(__name__)


def check_image(runtime: Runtime, image: str) -> str:
    """`Runtime.image_problem`, but raises ImageMissing for an image that only another build brings back."""
    problem = runtime.image_problem(image)
    if is_missing(problem):
        raise ImageMissing(problem)
    return problem


def why_lost(store: Store, image: str, problem: str) -> str:
    """What a job ends with whose image has a `problem` that no time will mend: it was made, is gone, and is
    not being made. "" for any other, which is waited for.
    """
    if not is_missing(problem):
        return ""
    with store.read() as db:
        return f"image missing: {problem}" if tables.is_lost(db, image) else ""


class ForgottenImages:
    """Has those removed that no version of any pipeline mentions.

    What is there is compared with what is wanted, so that one which a crash has left goes the next time.
    """

    def __init__(self, store: Store, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        # At the start too: for what was left by a crash, or was in use.
        self._due = threading.Event()
        self._due.set()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """Some pipeline is gone."""
        self._due.set()

    def remove(self) -> None:
        """Begin to, if there may be something to remove; at once, as an image store may be slow to answer."""
        if self._due.is_set() and (self._thread is None or not self._thread.is_alive()):
            self._due.clear()
            self._thread = threading.Thread(target=self._remove, name="images", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for what has begun, but not for an image store that hangs."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)

    def _remove(self) -> None:
        try:
            for _ in range(_TRIES):
                if self._runtime.keep_images(self._wanted) or self._closing.wait(_RETRY_S):
                    return
        except EngineError as error:
            log.warning("%s", error.message)
        except Exception:
            log.exception("forgotten images could not be removed")

    def _wanted(self, image: str) -> bool:
        with self._store.read() as db:
            return tables.is_mentioned(db, image)
