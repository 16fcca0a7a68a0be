"""The control socket: whoever may open it is trusted, and may be wrong."""

from __future__ import annotations

from typing import Any

from .corpus import Case


def asks(attack: str, name: str, sent: Any, check: str = "control requests") -> Case:
    expected = "not a request" if check in ("control requests", "parameters") else "refused"
    return Case(attack, name, "control", sent, (expected, "served"), check)


def command(attack: str, name: str, word: str, check: str = "parameters", **params: Any) -> Case:
    return asks(attack, name, {"id": 1, "command": word, "params": params}, check)


CASES = [
    *[
        asks("broken encoding", repr(sent[:12]), sent)
        for sent in ("", "{", "7", "[]", "null", b"\xc1", b"\x81\xa2id\x01")
    ],
    asks("utf-8", "a binary frame that is none", b'{"id":"\xff","command":"health"}'),
    asks("depth", "arrays without end", "[" * 200_000),
    asks("depth", "parameters without end", '{"id":1,"command":"devices","params":' + '{"a":' * 40_000),
    asks("numbers", "an id of 5,000 digits", '{"id":' + "9" * 5_000 + ',"command":"health"}'),
    asks("requests", "an id that is a list", {"id": [], "command": "health"}),
    asks("requests", "no command", {"id": 1}),
    asks("requests", "a command that is a number", {"id": 1, "command": 7}),
    asks("requests", "parameters that are a list", {"id": 1, "command": "health", "params": []}),
    command("requests", "a command that there is not", "shutdown", check="commands known"),
    command("size", "a command of 200,000 characters", "x" * 200_000, check="commands known"),
    command("names", "a command that is a method", "__class__", check="commands known"),
    command("requests", "parameters that there are not", "devices", devices="*"),
    command("globs", "no glob", "devices", device=""),
    command("globs", "a glob of 129 characters", "devices", device="*" * 129),
    command("requests", "a device that is a number", "explain", device=7),
    command("requests", "a device that is nobody", "explain", device="nobody", check="device known"),
    command("names", "a device that is a path", "explain", device="../../etc/passwd", check="device known"),
    command("size", "a device of 200,000 characters", "explain", device="x" * 200_000, check="device known"),
    command("numbers", "a limit of nothing", "top", limit=0),
    command("numbers", "a limit of millions", "dead-letters show", limit=10**9),
    command("numbers", "an interval of nothing", "top", interval_s=0),
    command("names", "a sink that is a path", "dead-letters", sink="../../etc", check="sink known"),
    command("size", "20,000 offsets", "dead-letters purge", offsets=list(range(20_000))),
    command("requests", "offsets that are texts", "dead-letters purge", offsets=["all"]),
]
