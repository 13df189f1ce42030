"""Tries again what may succeed the next time, each time after a longer while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import tenacity

from kaos_pipelines.fetch.errors import Transient
from kaos_pipelines.fetch.settings import Settings

T = TypeVar("T")


async def tried(
    once: Callable[[], Awaitable[T]],
    settings: Settings,
    say: Callable[[str], None],
    failures: Callable[[int], bool] | None = None,
) -> T:
    """What `once` returns, after as many tries as it takes. Raises what the last one raised.

    `failures`: whether it is enough after so many tries; `settings.tries` by default. `say` is told of each.
    """

    def enough(state: tenacity.RetryCallState) -> bool:
        count = state.attempt_number
        return count >= settings.tries if failures is None else failures(count)

    backoff = tenacity.wait_random_exponential(settings.backoff_s, settings.backoff_max_s)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        say(f"{error}; tries again")
        asked = error.wait_s if isinstance(error, Transient) else 0.0
        return max(backoff(state), min(asked, settings.silence_s))

    async def attempt() -> T:
        return await once()

    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient), stop=enough, wait=wait, reraise=True
    )
    return await retrying(attempt)
