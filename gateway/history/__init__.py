"""The embedded time-series store (``history.py``)."""

from gateway.history.history import Extent, History, Row, Snapshot

__all__ = ["Extent", "History", "Row", "Snapshot"]
