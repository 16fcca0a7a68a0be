"""Settings taken anew while the gateway runs: what has changed, what of it takes effect at once, what needs a restart.

Which settings can be changed is declared with them, in ``config``; ``changes`` tells of each whether it is one of
those, ``reloader`` takes them, ``rooms`` puts each into force.  SIGHUP and ``gateway check-config`` both go by
``changes``, so they agree.

A reload reads what a start reads, but for the environment: variables of the process stay what they were when it
started.  Settings with a fault change nothing.
"""

from .changes import Change, changes, compare, fingerprints, live, merged
from .reloader import Apply, Reloader, Take
from .rooms import appliers, clock_rules, device_settings

__all__ = [
    "Apply",
    "Change",
    "Reloader",
    "Take",
    "appliers",
    "changes",
    "clock_rules",
    "compare",
    "device_settings",
    "fingerprints",
    "live",
    "merged",
]
