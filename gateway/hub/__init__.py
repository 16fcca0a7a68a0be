"""Latest values and live subscriptions (``hub.py``), and what they are made of."""

from .accumulator import Entry, Every
from .group import PENDING_MAX, Member
from .hub import GRID_S, RECENT_MAX, Hub
from .presence import presence_of
from .selection import MSGPACK, Names, Selection, Subscription
from .series import Series, text_weight, wire_value

__all__ = [
    "GRID_S",
    "MSGPACK",
    "PENDING_MAX",
    "RECENT_MAX",
    "Entry",
    "Every",
    "Hub",
    "Member",
    "Names",
    "Selection",
    "Series",
    "Subscription",
    "presence_of",
    "text_weight",
    "wire_value",
]
