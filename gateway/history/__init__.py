"""The embedded time-series store (``history.py``)."""

from gateway.history.history import Answer, Extent, History, Row, Snapshot

__all__ = ["Answer", "Extent", "History", "Row", "Snapshot"]
