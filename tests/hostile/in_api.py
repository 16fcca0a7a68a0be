"""Questions to ``/api/v1``: what they may cost."""

from __future__ import annotations

from .corpus import Case


def asks(attack: str, name: str, query: str, *expected: str, check: str = "") -> Case:
    return Case(attack, name, "get", f"/api/v1/{query}", expected, check)


CASES = [
    *[
        asks("query", f"step {step}", f"history?step={step}", "400", check="durations")
        for step in (
            "0",
            "0s",
            "-1s",
            "1ns",
            "1e9s",
            "s",
            "99999999999999999999s",
            "NaNs",
            "%00",
            "1s%0A",
            "0.0000000001s",
            "1y",
        )
    ],
    *[
        asks("query", f"from {time}", f"history?from={time}", "400", check="times")
        for time in (
            "yesterday",
            "-",
            "--1h",
            "1e999",
            "-1e9h",
            "0x10",
            "%D9%A1",
            "2024-13-01",
            "-1h%00",
            "9" * 17,
            "'%20OR%201=1",
        )
    ],
    asks("query", "an aggregate that there is not", "history?agg=eval", "400", check="aggregates"),
    asks("query", "a format that there is not", "history?format=../../etc", "400", check="formats"),
    asks("query", "from behind to", "history?from=now&to=-1h", "400", check="order"),
    asks("query", "all of time", "history?from=0&to=9999999999999999", "200"),
    asks("query", "all of time in milliseconds", "history?from=0&to=9999999999999999&step=1ms", "200"),
    asks("query", "a step of centuries", "history?from=0&step=9999d", "200"),
    asks("query", "years from 1 to 9999", "history?from=0001-01-01&to=9999-12-31T23:59:59", "200"),
    asks("globs", "stars that try everything", "history?from=0&device=" + "*a" * 60 + "b&metric=" + "*a" * 60, "200"),
    asks("globs", "more stars than there may be", "latest?device=" + "*a" * 2_000, "400", check="glob size"),
    asks("globs", "a glob of 3,000 characters", "history?metric=" + "?" * 3_000, "400", check="glob size"),
    asks("globs", "for devices", "devices?device=" + "*a" * 2_000, "400", check="glob size"),
    asks("globs", "expressions are text", "latest?device=(a%2B)%2B%24&metric=%5B", "200"),
    asks("names", "SQL", "history?device='%3B%20DROP%20TABLE%20device%3B--&metric=%22", "200"),
    asks("names", "a path", "history?device=../../etc/passwd", "200"),
    asks("control characters", "NUL and lines", "latest?device=%00%0D%0A%1b%5b2J&metric=%E2%80%AE", "200"),
]
