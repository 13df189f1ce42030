"""Images that pipelines wait for, and those of pipelines that are gone, which the runtime removes."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

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


def why_lost(store: Store, runtime: Runtime, image: str, problem: str) -> str:
    """What a job ends with whose image has a `problem` that no time will mend: it was made, is gone, and is
    not being made. "" for any other, which is waited for.
    """
    if not is_missing(problem):
        return ""
    with store.read() as db:
        if not tables.is_lost(db, image):
            return ""
    # Asked again: a build may have ended since, with the image there.
    problem = runtime.image_problem(image)
    return f"image missing: {problem}" if is_missing(problem) else ""


class AwaitedImages:
    """Why images that pipelines wait for are not there.

    While one is being built the engine writes often, and looks each time at all that waits; whoever has the
    images would be busier with answers than with the build.

    Args:
        monotonic: in seconds.
        patience_s: for how long such an answer is as good as another.
    """

    def __init__(self, runtime: Runtime, monotonic: Callable[[], float], patience_s: float) -> None:
        self._runtime = runtime
        self._monotonic = monotonic
        self._patience_s = patience_s
        self._problems: dict[str, tuple[float, str]] = {}
        self._told = threading.Event()

    def problem(self, image: str) -> str:
        """As `Runtime.image_problem`; for one thread alone."""
        if self._told.is_set():
            # First: what ends from now on is told again.
            self._told.clear()
            self._problems.clear()
        at, problem = self._problems.pop(image, (-math.inf, ""))
        now = self._monotonic()
        if now - at >= self._patience_s:
            at, problem = now, self._runtime.image_problem(image)
        if problem:
            self._problems[image] = at, problem
        return problem

    def look_again(self) -> None:
        """Something has ended that may have built one."""
        self._told.set()


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
