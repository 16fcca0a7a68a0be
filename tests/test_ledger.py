"""The counts of the ledger."""

from gateway.ledger import FIELDS, Ledger


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
