from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from gateway.globs import any_of, is_pattern, matcher
from tests.history.model import matches


@given(st.text("ab*?.[", max_size=8), st.text("ab.[", max_size=8))
def test_same_as_the_plain_rule(glob: str, name: str) -> None:
    """A star is any characters, a question mark one, everything else itself."""
    assert matcher(glob)(name) == matches(glob, name)


def test_brackets_are_letters() -> None:
    """Brackets, dots and exclamation marks mean themselves."""
    assert matcher("a[bc]")("a[bc]")
    assert not matcher("a[bc]")("ab")
    assert not matcher("a.c")("abc")
    assert is_pattern("a*")
    assert not is_pattern("a[b]")


def test_patterns_of_many_stars_end() -> None:
    """A pattern of many stars takes time in proportion to its length."""
    before = time.process_time()
    assert not matcher("*a" * 60 + "*b")("a" * 128)
    assert time.process_time() - before < 1


def test_any_of() -> None:
    """One that matches is enough; no glob matches nothing."""
    match = any_of(["pump-?", "tank", "c*"])
    assert [name for name in ("pump-1", "pump-10", "tank", "tank2", "c", "cold") if match(name)] == [
        "pump-1",
        "tank",
        "c",
        "cold",
    ]
    assert any_of(["x", "*"])("anything")
    assert not any_of([])("anything")
    assert not any_of([""])("anything")
