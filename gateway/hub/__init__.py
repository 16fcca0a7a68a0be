"""Latest values and live subscriptions (``hub.py``), and what they are made of."""

from .accumulator import point, update_newest, wire_value
from .hub import GRID_S, PENDING_MAX, RECENT_MAX, Hub, Member, presence_of
from .selection import Selection, Subscription

__all__ = [
    "GRID_S",
    "PENDING_MAX",
    "RECENT_MAX",
    "Hub",
    "Member",
    "Selection",
    "Subscription",
    "point",
    "presence_of",
    "update_newest",
    "wire_value",
]
