"""What the history says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.history import History


@pytest.mark.parametrize(
    ("lost", "text"),
    [(1, "1 chunk of the history cannot be read"), (2, "2 chunks of the history cannot be read")],
)
async def test_problems_of_one_and_of_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: int, text: str
) -> None:
    """In the words of its number."""
    history = History(tmp_path / "history.db")
    monkeypatch.setattr(History, "stats", lambda self: {"damaged": float(lost)})
    assert history.problems() == [text]
