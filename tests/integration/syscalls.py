"""Reads ``strace -f -y -o`` output: were acks written only after their records were synced?

A line is ``PID call(FD<path or socket>, ...) = result``; one that another thread interrupts comes in two:
``PID call(FD<..>, ... <unfinished ...>`` and ``PID <... call resumed>...) = result``.
"""

from __future__ import annotations

import re

__all__ = ["acks_before_sync"]

LINE = re.compile(r"^(\d+) +(.*)$")
CALL = re.compile(r"^(\w+)\((\d+)<([^>]*)>")
RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>")
ACK = re.compile(r'\{\\"type\\":\\"ack\\",\\"seq\\":(\d+)\}')
SYNCS = ("fdatasync", "fsync")


def acks_before_sync(trace: str, devices: list[str]) -> tuple[int, list[str]]:
    """How many acks there were, and each that was written too early, in words.

    A reading's record is the write, to a file, that holds ``DEVICE-SEQ.``; a device is known from its ``welcome``.
    """
    socket_of: dict[str, str] = {}  # socket to device
    written: dict[str, dict[str, int]] = {}  # file to what was written to it and is not synced, each with its line
    syncing: dict[str, tuple[str, int]] = {}  # thread to the file it is syncing, and the line where that began
    synced: dict[str, int] = dict.fromkeys(devices, 0)  # device to the highest number that is on disk
    mark = re.compile(f"({'|'.join(map(re.escape, devices))})-(\\d+)\\.")
    acks, faults = 0, []

    def sync_ended(path: str, began: int) -> None:
        for name, line in list(written.get(path, {}).items()):
            if line < began:
                device, _, seq = name.rpartition("-")
                synced[device] = max(synced[device], int(seq))
                del written[path][name]

    for number, text in enumerate(trace.splitlines()):
        line = LINE.match(text)
        if line is None:
            continue
        thread, rest = line.groups()
        if resumed := RESUMED.match(rest):
            if resumed[1] in SYNCS and thread in syncing and rest.endswith("= 0"):
                sync_ended(*syncing.pop(thread))
            continue
        call = CALL.match(rest)
        if call is None:
            continue
        name, _, target = call.groups()
        if name in SYNCS:
            if rest.endswith("<unfinished ...>"):
                syncing[thread] = (target, number)
            elif rest.endswith("= 0"):
                sync_ended(target, number)
        elif "/journal/" in target:
            file = written.setdefault(target, {})
            file.update(("-".join(found), number) for found in mark.findall(rest))
        elif not target.startswith("/"):
            for device in devices:
                if f'\\"welcome\\",\\"device\\":\\"{device}\\"' in rest:
                    socket_of[target] = device
            for seq in ACK.findall(rest):
                acks += 1
                device = socket_of[target]
                if int(seq) > synced[device]:
                    faults.append(f"{device}: ack {seq} when {synced[device]} was on disk: {text[:200]}")
    return acks, faults
