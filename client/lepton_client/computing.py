"""Arithmetic beside the event loop: in a thread where it is long, at once where a thread would cost more than it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

#: Arithmetic on so many values takes the event loop about a millisecond.
_FEW_VALUES = 2**15


async def compute(values: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The function's result, off the event loop if it works on many values; handing over a few costs more than they."""
    if values <= _FEW_VALUES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
