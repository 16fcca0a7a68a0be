"""What differs between two states of the settings, and what of it needs a restart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import config
from ..config import Settings

__all__ = ["Change", "changes", "compare", "fingerprints", "live", "merged"]

TLS = config.variable(("tls", "cert"))


class Change(NamedTuple):
    """A setting that is not what it was; ``live``: it takes effect without a restart."""

    variable: str
    live: bool


def live() -> set[str]:
    """The variables that can be changed while the gateway runs."""
    return {leaf.variable for leaf in config.leaves() if leaf.live}


def changes(old: Settings, new: Settings) -> list[Change]:
    """What differs, in the order of the settings."""
    with_tls = old.tls.cert is not None and new.tls.cert is not None
    return [Change(leaf.variable, _takes(leaf, with_tls)) for leaf in config.leaves() if leaf.of(old) != leaf.of(new)]


def compare(new: Settings, answer: Mapping[str, Any]) -> list[Change]:
    """What ``new`` has otherwise than the gateway that gave ``answer`` (:meth:`Reloader.describe`).

    ``live``: a reload is enough, that is, the setting can be changed and a reload would find this value.  It finds
    another where the gateway was started with a variable that says otherwise.
    """
    now, read = answer["now"], answer["read"] or {}
    mine = fingerprints(new, answer["salt"])
    with_tls = bool(answer["shown"].get(TLS)) and new.tls.cert is not None
    return [
        Change(leaf.variable, _takes(leaf, with_tls) and read.get(leaf.variable) == mine[leaf.variable])
        for leaf in config.leaves()
        if leaf.variable in now and now[leaf.variable] != mine[leaf.variable]
    ]


def _takes(leaf: config.Leaf, with_tls: bool) -> bool:
    return leaf.live == "always" or (leaf.live == "with_tls" and with_tls)


def merged(old: Settings, new: Settings) -> Settings:
    """``old`` with those of its settings changed to ``new`` that can be while the gateway runs."""
    take = {change.variable for change in changes(old, new) if change.live}
    update: dict[str, Any] = {}
    for leaf in config.leaves():
        if leaf.variable not in take:
            continue
        if leaf.section is None:
            update[leaf.name] = leaf.of(new)
        else:
            section = update.get(leaf.section, getattr(old, leaf.section))
            update[leaf.section] = section.model_copy(update={leaf.name: leaf.of(new)})
    return old.model_copy(update=update)


def fingerprints(settings: Settings, salt: str) -> dict[str, str]:
    """A hash of each setting's value, by its variable: to be compared, not to be read."""
    found = {}
    for leaf in config.leaves():
        value = leaf.of(settings)
        clear = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if type(clear) is int:
            clear = float(clear)  # a default that was written without a point equals what was read as a fraction
        data = json.dumps(clear, default=str).encode()
        found[leaf.variable] = hashlib.blake2b(data, key=salt.encode(), digest_size=16).hexdigest()
    return found
