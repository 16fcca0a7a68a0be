"""The settings in force, and how they are changed while the gateway runs."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from .. import config
from ..config import Settings
from ..errors import ConfigError
from .changes import Change, changes, fingerprints, merged

__all__ = ["Apply", "Reloader", "Take"]

log = logging.getLogger(__name__)

Apply = Callable[[Settings], None]
Take = Callable[[], Sequence[str]]


class Reloader:
    """The settings in force, and how they are changed.

    ``apply`` has for every setting that can be changed what puts it into force; several may share one.  ``prepare``
    is called first, with the settings to come, for what can fail and what has to be waited for, in a thread: it raises
    :class:`ConfigError`, else it gives what is called at the end, on the loop, to put into force what it has read, and
    says in words what of that is new.  ``load`` reads the settings.
    """

    def __init__(
        self,
        settings: Settings,
        apply: Mapping[str, Apply] | None = None,
        *,
        prepare: Callable[[Settings], Take] = lambda settings: list,
        load: Callable[[], Settings] = config.load,
    ) -> None:
        self.settings = settings
        self.apply: Mapping[str, Apply] = apply or {}
        self._prepare = prepare
        self._load = load
        self._fault = ""
        self.reloads = 0
        self.failures = 0

    async def reload(self) -> list[Change] | None:
        """Read the settings and put into force what can be; what differed, ``None`` where they have faults.

        Everything is said in the log.  What needs a restart is said each time until there was one.  What is raised
        while they are put into force is a fault of ours: those before are in force again then.
        """
        try:
            new = await asyncio.to_thread(self._load)
            found = changes(self.settings, new)
            settings = merged(self.settings, new)
            take = await asyncio.to_thread(self._prepare, settings)
        except ConfigError as error:
            self.failures += 1
            self._fault = str(error)
            for fault in self._fault.splitlines():
                log.error("the settings stay as they were: %s", fault, extra={"event": "settings", "reason": fault})
            return None
        taken = [change.variable for change in found if change.live]
        with ExitStack() as back:
            back.callback(self._failed)
            for apply in _distinct(self.apply[variable] for variable in taken):
                back.callback(apply, self.settings)
                apply(settings)
            read = take()
            back.pop_all()
        self.settings = settings
        self._fault = ""
        self.reloads += 1
        words = f"{', '.join(taken)} changed" if taken else "none was changed"
        words = "; ".join([words, *read])
        log.info("the settings were read anew: %s", words, extra={"event": "settings", "count": len(taken)})
        for change in found:
            if not change.live:
                extra = {"event": "settings", "reason": change.variable}
                log.warning("%s has changed and needs a restart", change.variable, extra=extra)
        return found

    def _failed(self) -> None:
        self.failures += 1
        self._fault = "they could not be put into force, the log has a traceback"

    def problems(self) -> Iterator[tuple[str, str]]:
        """What is wrong, with what to do."""
        if self._fault:
            yield (
                f"The new settings have faults, those before stay in force: {'; '.join(self._fault.splitlines())}.",
                "Put them right (`gateway check-config`), then `systemctl reload gateway` (SIGHUP).",
            )

    def stats(self) -> dict[str, float]:
        """Flat numbers."""
        return {"reloads": self.reloads, "failures": self.failures}

    async def describe(self, params: dict[str, Any]) -> object:
        """For the command ``settings``: hashes of what is in force, and of what a reload would find by itself.

        ``shown`` has the values in force, secrets masked; ``faults`` are those that a reload would find.
        """
        salt = secrets.token_hex(16)
        answer: dict[str, Any] = {
            "salt": salt,
            "now": fingerprints(self.settings, salt),
            "shown": config.shown(self.settings),
            "faults": [],
            "read": None,
        }
        try:
            answer["read"] = fingerprints(await asyncio.to_thread(self._load), salt)
        except ConfigError as error:
            answer["faults"] = str(error).splitlines()
        return answer


def _distinct(functions: Iterable[Apply]) -> list[Apply]:
    return list(dict.fromkeys(functions))
