"""The journal: segments of checksummed records on disk, one group commit a record, read through cursors."""

from gateway.journal.cursor import Cursor, Position
from gateway.journal.journal import Journal
from gateway.journal.waiter import Waiter

__all__ = ["Cursor", "Journal", "Position", "Waiter"]
