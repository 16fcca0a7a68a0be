"""Sinks: where readings go from the journal.  The contract is ``base``, the machinery ``runner``."""
