"""Attempts that fail, by address."""

from __future__ import annotations

from gateway.server.attempts import ADDRESSES, FAILURES, Attempts
from tests.ws.support import Clock


def test_so_many_in_a_minute() -> None:
    """After twenty failures an address waits, and has one more for every three seconds."""
    clock = Clock()
    attempts = Attempts(clock)
    assert [attempts.fail(("192.0.2.1", 5)) for _ in range(FAILURES)] == [0.0] * FAILURES
    assert 0 < attempts.fail(("192.0.2.1", 6)) <= 3
    assert attempts.fail(("192.0.2.2", 5)) == 0
    clock.now += 3.1
    assert attempts.fail(("192.0.2.1", 7)) == 0
    assert attempts.fail(("192.0.2.1", 8)) > 0
    clock.now += 60
    assert [attempts.fail(("192.0.2.1", 5)) for _ in range(FAILURES)] == [0.0] * FAILURES


def test_a_network_is_one_address() -> None:
    """64 bits of IPv6 are one; an IPv4 address is the same in IPv6's clothes."""
    attempts = Attempts(Clock())
    for number in range(FAILURES):
        assert attempts.fail((f"2001:db8::{number:x}", 1, 0, 0)) == 0
        assert attempts.fail((f"::ffff:192.0.2.{1}", 1, 0, 0)) == 0
    assert attempts.fail(("2001:db8::ffff", 1, 0, 0)) > 0
    assert attempts.fail(("192.0.2.1", 1)) > 0
    assert attempts.fail(("2001:db8:0:1::1", 1, 0, 0)) == 0
    assert attempts.fail("") == 0


def test_memory_is_bounded() -> None:
    """The address longest without a failure is forgotten."""
    attempts = Attempts(Clock())
    for _ in range(FAILURES):
        attempts.fail(("192.0.2.1", 1))
    for number in range(ADDRESSES + 100):
        attempts.fail((f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1))
        if number == 500:
            assert attempts.fail(("192.0.2.1", 1)) > 0
    assert len(attempts) == ADDRESSES
    assert attempts.fail(("10.0.0.1", 1)) == 0
