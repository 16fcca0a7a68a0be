"""Arguments that make no sense are refused where they are given, not at the first connection."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "Origins",
    "at_least_one",
    "callable_",
    "coroutine_function",
    "is_async",
    "names",
    "origins",
    "pulse",
    "seconds",
]

Origins = Sequence[str | re.Pattern[str] | None]

_token = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", re.ASCII).fullmatch


def at_least_one(**values: int | None) -> None:
    """Raises ``ValueError`` for a bound that is not a whole number of at least 1; ``None`` is none."""
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def seconds(**values: float) -> None:
    """Raises ``ValueError`` for a time that is not positive."""
    for name, value in values.items():
        if not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")


def pulse(heartbeat: Any) -> tuple[float, float] | None:
    """A heartbeat, (interval, timeout).  Raises ``ValueError`` for anything but two positive times, or ``None``."""
    if heartbeat is None:
        return None
    try:
        interval, timeout = map(float, heartbeat)
    except (TypeError, ValueError):
        raise ValueError(f"heartbeat must be (interval, timeout), not {heartbeat!r}") from None
    if not interval > 0 or not timeout > 0:
        raise ValueError(f"heartbeat must be (interval, timeout), both positive seconds, not {heartbeat!r}")
    return interval, timeout


def names(subprotocols: Any) -> tuple[str, ...]:
    """Subprotocols.  Raises ``TypeError`` for a bare string, ``ValueError`` for what is no token (RFC 6455, 4.1)."""
    if isinstance(subprotocols, str):
        raise TypeError(f"subprotocols are a list of names, not {subprotocols!r}")
    found = tuple(subprotocols)
    for name in found:
        if not isinstance(name, str) or not _token(name):
            raise ValueError(f"{name!r} cannot be the name of a subprotocol")
    return found


def origins(given: Origins | None) -> tuple[str | re.Pattern[str] | None, ...] | None:
    """A list of origins.  Raises ``TypeError`` for a bare string and for what is no origin."""
    if given is None:
        return None
    if isinstance(given, str | bytes | re.Pattern):
        raise TypeError(f"origins are a list, not {given!r}")
    found = tuple(given)
    for origin in found:
        if origin is not None and not isinstance(origin, str | re.Pattern):
            raise TypeError(f"an origin is a string, a pattern or None, not {origin!r}")
    return found


def callable_(what: str, function: object) -> None:
    """Raises ``TypeError`` for what cannot be called."""
    if not callable(function):
        raise TypeError(f"{what} must be a function, not {function!r}")


def is_async(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine, as far as can be seen."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def coroutine_function(what: str, function: Callable[..., Any]) -> None:
    """Raises ``TypeError`` for a plain function; one that wraps another, and a lambda, may hand on a coroutine."""
    callable_(what, function)
    plain = inspect.isfunction(function) and function.__name__ != "<lambda>" and not hasattr(function, "__wrapped__")
    if plain and not is_async(function):
        raise TypeError(f"{what} must be an async function, not {function!r}")
