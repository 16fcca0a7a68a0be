"""Layout ``influx``: InfluxDB line protocol, one line a reading.

``measurement,device=pump-1 temperature=22.5,door=true 1764000000000000000``: tag ``device``, one field a
metric, times in nanoseconds (https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/).

Numbers are floats, written without suffix, unless the metric is declared an integer (suffix ``i``): 22 and
then 22.5 must not conflict.  Strings are quoted, with ``\\`` and ``"`` escaped.  A line feed in a string is written
as the two characters ``\\n``: InfluxDB would take it as it is, but VictoriaMetrics ends the line there, and what a
device put behind it would be a line of its own, in any other device's name.  Names of devices and metrics hold
nothing that the protocol escapes (gateway.reading), so that only the measurement needs escaping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.reading import INT64_MAX, INT64_MIN, Item, Reading, Value
from gateway.sinks.layouts.message import HISTORICAL, Message
from gateway.topics import Topics

__all__ = ["Influx", "Integer", "never"]

Integer = Callable[[str, str], bool]
"""``integer(device, metric)``: whether the device declared the metric an integer; called from any thread."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def never(device: str, metric: str) -> bool:
    """No metric is declared an integer."""
    return False


class Influx:
    """See the module's text."""

    presence = None

    def __init__(self, measurement: str = "telemetry", integer: Integer = never) -> None:
        self._head = measurement.translate({ord(","): "\\,", ord(" "): "\\ "}) + ",device="
        self._integer = integer

    def line(self, reading: Reading) -> str:
        """The line of a reading that has values, without line feed at its end."""
        device, integer = reading.device, self._integer
        fields = []
        for metric, value in reading.values.items():
            if type(value) is float and integer is never:
                fields.append(f"{metric}={value!r}")
            else:
                fields.append(f"{metric}={_field(value, integer(device, metric))}")
        return f"{self._head}{device} {','.join(fields)} {reading.time}"

    def lines(self, items: Sequence[Item]) -> list[str]:
        """The lines of all readings that have values, in order."""
        return [self.line(item) for item in items if type(item) is Reading and item.values]

    def messages(
        self, items: Sequence[Item], topics: Topics, max_bytes: int, historical_before: int = 0
    ) -> list[Message]:
        """One message for each device, or several where ``max_bytes`` or a change of kind asks for it.

        In the order of each device's first reading.
        """
        devices: dict[str, list[tuple[int, bytes, bool]]] = {}
        for index, item in enumerate(items):
            if type(item) is Reading and item.values:
                line = self.line(item).encode()
                devices.setdefault(item.device, []).append((index, line, item.received < historical_before))
        made = []
        for device, lines in devices.items():
            topic = topics.device(device)
            start = size = 0
            for stop, (_, line, late) in enumerate(lines):
                if stop > start and (size + len(line) + 1 > max_bytes or late is not lines[start][2]):
                    made.append(_join(topic, lines[start:stop]))
                    start, size = stop, 0
                size += len(line) + 1
            made.append(_join(topic, lines[start:]))
        return made


def _join(topic: str, lines: list[tuple[int, bytes, bool]]) -> Message:
    indices = tuple([index for index, _, _ in lines])
    return Message(
        topic, b"\n".join([line for _, line, _ in lines]), indices, (HISTORICAL,) if lines[0][2] else (), "text/plain"
    )


def _field(value: Value, integer: bool) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPES) + '"'
    if integer and (isinstance(value, int) or (value.is_integer() and INT64_MIN <= value <= INT64_MAX)):
        return f"{int(value)}i"
    # A fraction in a metric declared an integer stays one: the store says so, and the reading is put aside
    # with its reason, rather than changed here.
    return repr(value)
