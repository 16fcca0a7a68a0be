"""Commands that the gateway hands to a device, and their answers.

The gateway's queue of commands is durable and hands out again what was not answered: an id seen before is
answered from memory and not run twice.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from .wire import Command, Incoming

__all__ = ["Commands", "Handler"]

Handler = Callable[[Command], Any]

REMEMBERED = 256  # answers; the oldest is forgotten
RUNNING = 64  # at once; beyond, the answer is that the device is busy

logger = logging.getLogger(__name__)


class Commands:
    """Runs ``handler(command)``, which may be a coroutine function, and says its result.

    What it returns is the answer's ``value``; what it raises is an answer that is not ``ok``, with the words
    as ``value``.
    """

    def __init__(self, handler: Handler | None, say: Callable[[dict[str, object]], None]) -> None:
        self._handler = handler
        self._say = say
        self._answers: dict[str, dict[str, object]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def receive(self, incoming: Incoming) -> None:
        """Take one ``command`` message."""
        id = incoming.id
        if id in self._answers:
            self._say(self._answers[id])
        elif id in self._running:
            return
        elif self._handler is None:
            self._answer(id, False, "this device takes no commands")
        elif len(self._running) >= RUNNING:
            # Not remembered: it was not run, and may be asked again.
            self._say(_result(id, False, "busy"))
        else:
            params = incoming.params if isinstance(incoming.params, dict) else {}
            command = Command(id, incoming.name, params, incoming.expires, incoming.device)
            self._running[id] = asyncio.create_task(self._run(self._handler, command), name=f"command {id}")

    def cancel(self) -> None:
        """Stop what is running; it will not be answered."""
        for task in self._running.values():
            task.cancel()

    async def _run(self, handler: Handler, command: Command) -> None:
        try:
            value = handler(command)
            if inspect.isawaitable(value):
                value = await value
            self._answer(command.id, True, value)
        except Exception as error:
            # The task's outermost edge: whatever the handler raises is this command's answer.
            logger.exception("command %s (%s) failed", command.name, command.id)
            self._answer(command.id, False, str(error) or type(error).__name__)
        finally:
            del self._running[command.id]

    def _answer(self, id: str, ok: bool, value: object) -> None:
        answer = _result(id, ok, value)
        # Said first: a value that cannot be encoded raises here and is answered as a failure.
        self._say(answer)
        self._answers[id] = answer
        if len(self._answers) > REMEMBERED:
            del self._answers[next(iter(self._answers))]


def _result(id: str, ok: bool, value: object) -> dict[str, object]:
    answer: dict[str, object] = {"type": "result", "id": id, "ok": ok}
    if value is not None:
        answer["value"] = value
    return answer
