"""The embedded time-series store (``history.py``)."""

from gateway.history.history import History, Row

__all__ = ["History", "Row"]
