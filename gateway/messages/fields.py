"""Types of fields that many messages share.  What has a ``title`` stands in the description once, under that name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from ..reading import DEVICE, INT64_MAX, MAX_STRING, METRIC

__all__ = [
    "Count",
    "DeviceName",
    "MetricName",
    "Milliseconds",
    "Offset",
    "Params",
    "Point",
    "Sequence",
    "Series",
    "SparseValues",
    "State",
    "Timestamp",
    "Value",
]

DeviceName = Annotated[str, Meta(title="DeviceName", description="A device's name.", pattern=f"^{DEVICE}$")]
MetricName = Annotated[
    str, Meta(title="MetricName", description="A metric's name, by SenML's grammar.", pattern=f"^{METRIC}$")
]
Value = Annotated[
    bool | int | float | Annotated[str, Meta(max_length=MAX_STRING)],
    Meta(
        title="Value",
        description="A finite number, an integer of 64 bits, a boolean, or a text without control characters other "
        "than tab, CR and LF.  In JSON for browsers, integers beyond 2^53-1 are strings of digits.",
    ),
]
SparseValues = Annotated[
    dict[MetricName, Value | None],
    Meta(title="SparseValues", description="Values by metric; null means absent, and is skipped."),
]
Milliseconds = Annotated[
    int, Meta(title="Milliseconds", description="Milliseconds since the epoch, UTC.", ge=0, le=INT64_MAX)
]
Timestamp = Annotated[
    float,
    Meta(
        title="Timestamp",
        description="A time since the epoch: below 1e11 in seconds, below 1e14 in milliseconds, below 1e17 in "
        "microseconds, else in nanoseconds.",
        ge=0,
    ),
]
Sequence = Annotated[
    int,
    Meta(
        title="Sequence",
        description="Grows within a session, gaps are legal.  A reading without it gets no ack.",
        ge=1,
        le=INT64_MAX,
    ),
]
Count = Annotated[int, Meta(ge=0)]
Offset = Annotated[
    int,
    Meta(
        title="Offset",
        description="A point of the stream, together with the epoch.  Grows, never used twice; -1 before the first.",
        ge=-1,
    ),
]
State = Annotated[
    Literal["online", "stale", "offline"],
    Meta(
        title="State",
        description="Connected and heard of; connected and silent for longer than expected; not connected.",
    ),
]
Point = Annotated[
    tuple[Milliseconds, Value],
    Meta(title="Point", description="A value and its time.", examples=[[1764000000000, 22.5]]),
]
Series = Annotated[
    dict[DeviceName, dict[MetricName, list[Point]]],
    Meta(title="Series", description="Points by device and metric, in the order in which they came."),
]
Params = Annotated[dict[str, Any], Meta(title="Params", description="What a command is to be carried out with.")]
