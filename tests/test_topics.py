"""Topic templates: what they make, and what cannot be one."""

from __future__ import annotations

import re

import pytest

from gateway.topics import TEMPLATE, Topics, problem


def test_topics() -> None:
    """Names stand in their levels; what was made once is remembered, within a bound."""
    topics = Topics("site/a{b}")
    assert [topics.device("pump-1") for _ in range(2)] == ["site/a{b}/pump-1/telemetry"] * 2
    values = Topics("p", "home/{device}/is/{metric}/{prefix}")
    assert values.value("pump-1", "a/b.c") == "home/pump-1/is/a.b.c/p"
    assert (topics.per_value, values.per_value) == (False, True)
    for number in range(40_000):
        topics.device(f"d-{number}")
    assert len(topics._known) <= 16_384


def test_the_longest() -> None:
    """It bounds every topic that can be made, and is one."""
    assert Topics("p").longest == len(Topics("p").device("d" * 64))
    values = Topics("p", "{prefix}/{device}/metric/{metric}")
    assert values.longest == len(values.value("d" * 64, "m" * 128))


@pytest.mark.parametrize(
    "template", [TEMPLATE, "{device}", "{prefix}/{device}/metric/{metric}", "a/{device}-x/y", "v/{metric}/{device}"]
)
def test_good_ones(template: str) -> None:
    """They are taken."""
    assert problem(template) == ""


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("", "device"),
        ("a/b", "{device} has to"),
        ("{device}/{device}", "once"),
        ("{device}/{nosuch}", "{nosuch}"),
        ("{device}/{}", "{}"),
        ("{device}/{0}", "{0}"),
        ("{device", "brace"),
        ("{device}}", "brace"),
        ("{device}/#", "+, #"),
        ("+/{device}", "+, #"),
        ("$SYS/{device}", "begins with $"),
        ("a//{device}", "empty"),
        ("/{device}", "empty"),
        ("{device}/", "empty"),
        ("{device}/{metric}", "level of its own"),
        ("{device}/m-{metric}", "level of its own"),
        ("{metric}/{device}", "level of its own"),
        ("{device}/presence", "presence"),
        ("{prefix}/{device}/command/{metric}", "command"),
        ("{prefix}/status/{device}", "status"),
    ],
)
def test_bad_ones(template: str, words: str) -> None:
    """Each is refused in words."""
    assert words in problem(template)
    with pytest.raises(ValueError, match=re.escape(words)):
        Topics("p", template)
