"""How many connections there may be."""

from __future__ import annotations

import pytest

from gateway import capacity


@pytest.mark.parametrize(
    ("limits", "asked", "expected"),
    [
        ((1024, 1024), None, (668, 128)),
        ((1024, 1024), 100, (100, 128)),
        ((1024, 1024), 5000, (668, 128)),
        ((1024, 20_000), 5000, (5000, 1024)),
        ((20_000, 20_000), None, (17_852, 1024)),
        ((64, 64), None, (16, 8)),
    ],
)
def test_no_more_connections_than_file_descriptors(
    limits: tuple[int, int], asked: int | None, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the journal and the sinks need is kept back; the soft limit is raised to the hard one."""
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(capacity.resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(capacity.resource, "setrlimit", lambda _, to: raised.append(to))
    assert capacity.max_connections(asked) == expected
    assert raised == ([(limits[1], limits[1])] if limits[0] < limits[1] else [])
