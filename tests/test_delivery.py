"""Acks of the level delivered."""

from gateway.delivery import CHECKPOINTS, Delivery


class Connection:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def delivered(self, seq: int) -> None:
        self.told.append(seq)


class Bench:
    """A journal's end and the sinks' progress, moved by hand."""

    def __init__(self) -> None:
        self.durable = self.taken = 0
        self.delivery = Delivery(lambda: self.durable, lambda: self.taken)


def test_told_when_all_sinks_have_passed():
    """The newest checkpoint that was passed is told, once."""
    bench, connection = Bench(), Connection()
    for bench.durable, seq in ((10, 1), (20, 2), (30, 3)):
        bench.delivery.add(connection, seq)
    bench.taken = 9
    bench.delivery.advance()
    assert connection.told == []
    bench.taken = 25
    bench.delivery.advance()
    bench.delivery.advance()
    assert connection.told == [2]
    bench.taken = 30
    bench.delivery.advance()
    assert connection.told == [2, 3]


def test_told_at_once_when_it_is_delivered_already():
    """A resumed session whose readings all went out is told at once."""
    bench, connection = Bench(), Connection()
    bench.durable = bench.taken = 40
    bench.delivery.add(connection, 7)
    assert connection.told == [7]


def test_bounded_and_never_wrong():
    """An hour without a sink costs a few checkpoints; what is told is never more than was passed, the end is exact."""
    bench, connection = Bench(), Connection()
    for n in range(1, 5001):
        bench.durable = n * 10
        bench.delivery.add(connection, n)
    assert len(bench.delivery._waiting[connection]) <= CHECKPOINTS
    for bench.taken in range(0, 50_001, 7):
        before = len(connection.told)
        bench.delivery.advance()
        assert all(seq * 10 <= bench.taken for seq in connection.told[before:])
    bench.taken = 50_000
    bench.delivery.advance()
    assert connection.told[-1] == 5000


def test_one_that_left_is_told_nothing():
    """A closed connection is forgotten."""
    bench, connection = Bench(), Connection()
    bench.durable = 10
    bench.delivery.add(connection, 1)
    bench.delivery.discard(connection)
    bench.taken = 10
    bench.delivery.advance()
    assert connection.told == []
