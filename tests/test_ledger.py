"""The counts of the ledger."""

import sys

from gateway.ledger import COUNT_MAX, FIELDS, Ledger


def test_sum_and_settled_snapshot():
    """What is in flight is in the sum, and not in the snapshot that has to stay true after a crash."""
    ledger = Ledger((10, 5, 1, 1, 1, 0, 4))
    ledger.accepted += 2
    counts = ledger.as_dict()
    assert counts["in_flight"] == 2
    assert counts["received"] == sum(counts[field] for field in FIELDS[1:])
    again = Ledger(ledger.settled())
    assert (again.received, again.in_flight, again.missing) == (8, 0, 4)


def test_total():
    """Ledgers add up."""
    total = Ledger()
    total.add(Ledger((1, 1, 0, 0, 0, 0, 2)))
    total.add(Ledger((2, 1, 1, 0, 0, 0, 3)))
    assert (total.received, total.stored, total.rejected, total.missing) == (3, 2, 1, 5)


def test_a_total_of_many_costs_little():
    """Every count is added up, and stays within what a file and a wire can hold, without a call at each step."""
    total = Ledger()
    one = Ledger((1, 1, 0, 0, 0, 0, COUNT_MAX - 5))
    one.accepted += 1
    calls = []
    sys.setprofile(lambda frame, event, called: calls.append(called) if event == "c_call" else None)
    try:
        for _ in range(10):
            total.add(one)
    finally:
        sys.setprofile(None)
    assert calls == [sys.setprofile]
    assert (total.received, total.stored, total.in_flight) == (10, 10, 10)
    assert total.missing == COUNT_MAX
