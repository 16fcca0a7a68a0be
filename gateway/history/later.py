"""Answers to questions that are asked at one time and awaited at another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["Later"]

T = TypeVar("T")


class Later(Awaitable[T]):
    """A coroutine that begins when it is awaited, and may never be."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, None, T]:
        return self._begin().__await__()
