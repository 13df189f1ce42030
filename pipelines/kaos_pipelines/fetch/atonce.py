"""Many things at a time, a few of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def at_once(count: int, items: Iterable[T], do: Callable[[T], Awaitable[None]]) -> None:
    """Do all `items`, `count` of them at a time. What one raises ends the others, and is raised."""
    rest = iter(items)

    async def work() -> None:
        for item in rest:
            await do(item)

    tasks = [asyncio.create_task(work()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
