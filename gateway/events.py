"""The kinds of log entries that operators look for, and the fields that entries carry.

An entry of a kind is logged as ``log.warning(words, .., extra={"event": KIND, "device": .., "reason": ..})``: ``event``
is a key of :data:`EVENTS`, every other name one of :data:`FIELDS`.  A kind's id is fixed for good: journald shows it
as ``MESSAGE_ID`` (systemd.journal-fields(7)), and `journalctl MESSAGE_ID=..` finds its entries in any version.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EVENTS", "FIELDS", "Event"]


class Event(NamedTuple):
    """A kind: 128 bits as 32 hexadecimal digits, the usual level, and what happened."""

    id: str
    level: str
    words: str


EVENTS: dict[str, Event] = {
    "started": Event("e17603ef073c421f8477e971fd4638f3", "info", "The gateway listens: every start has one."),
    "stopped": Event("776cc72813154737a622d11ffe05af65", "info", "It has ended, with everything accepted on disk."),
    "stop_cut": Event(
        "1838b21d01454a188993549a28153bf0",
        "error",
        "The stop took too long and was cut; nothing that was acked is lost.",
    ),
    "insecure": Event(
        "add8876da26448f29a473a89b93eef60",
        "warning",
        "It listens where others reach it, without asking who they are or without TLS.",
    ),
    "settings": Event(
        "1ce24510786e471daf802b8cd2445b7f", "info", "Settings were read again; those that need a restart are named."
    ),
    "certificate": Event(
        "1390c16230a647149a22b710833b92df", "warning", "A certificate could not be used, or ends soon."
    ),
    "fault": Event(
        "9a22c9063d0d4bfc846f126f18a37d77", "error", "A fault in the gateway, with its traceback: please report it."
    ),
    "log_lost": Event(
        "4e0f0fc1e24d4e768c1563fd4d816a9b", "warning", "Entries were left out, because what takes the log was too slow."
    ),
    "file_aside": Event(
        "e3c60e9ee08d4cbd8352b4b79ebe439e",
        "error",
        "A file in the state directory could not be used; it was kept under another name.",
    ),
    "journal_failed": Event(
        "a4e200a2b27446e4880a27f36db8ec52", "error", "The journal cannot be written: nothing is acked until it can."
    ),
    "journal_works": Event("521b502794064e338fd4ea1b8c4a543f", "info", "It can be written again."),
    "intake_stopped": Event(
        "44201e5bf50f47578adcddd6c26be52e",
        "warning",
        "Devices get `overloaded`: the journal has no room or cannot be written.",
    ),
    "intake_works": Event("ea73c0721e0a418181a230b98abf37ba", "warning", "Readings are taken again."),
    "journal_dropped": Event(
        "21ab680b66a34f4d998f79851f8e17a0",
        "warning",
        "The full journal let go of readings that a sink had not taken (`drop_oldest`).",
    ),
    "journal_damaged": Event(
        "c2587c5f98ba4e1a808c44b97c136f13",
        "warning",
        "Something in the journal cannot be read; what is lost is counted.",
    ),
    "history_failed": Event(
        "8c00543b5bac4d97a5df7d56cebf8b28", "warning", "The history could not be written or read; it is tried again."
    ),
    "history_damaged": Event(
        "18d9fcbfdbc7434eaa5282e4e8965fff",
        "error",
        "The history's file was damaged; it was made anew from what can be read.",
    ),
    "sink_unreachable": Event(
        "51e401e7ae1c4eb5a2ef1394a2975944",
        "warning",
        "A broker or store cannot be reached; readings wait in the journal.",
    ),
    "sink_stopped": Event(
        "87146baa3c1e487d95435f955225bf99",
        "error",
        "A broker or store refuses everything until a person mends something.",
    ),
    "sink_deaf": Event(
        "5d0f8a4be2a94f0d9c6d3a0f4c1be7a2",
        "warning",
        "The broker lets the gateway publish and not subscribe: no commands come from there.",
    ),
    "sink_works": Event("c5f3f5835b5f4d0db3e686b25e4c07aa", "info", "It takes readings again."),
    "dead_letter": Event(
        "49f31b7138e54e439f7602982f7476bb", "warning", "A reading was refused by the far side for good and put aside."
    ),
    "device_online": Event("97340770894447d1b26622aa90449896", "info", "A device has connected."),
    "device_stale": Event(
        "93184fde117f486c85a2a98374306348", "info", "A connected device has been silent for longer than expected of it."
    ),
    "device_offline": Event(
        "a8f21d2e9dad4bec99ac7044a258871a", "info", "A device's connection has ended; REASON says how."
    ),
    "devices_lost": Event(
        "1eb63b5fd5f4455f8d496b6e291a57b5", "warning", "Many devices were lost at once: a network or an access point."
    ),
    "device_refused": Event(
        "fdbf2c8bc71f4262bdc19fa10f1995af", "warning", "A device's reading or request was refused for good."
    ),
    "device_undecodable": Event(
        "46067622f61a49dd99cf5e65098d6d9f", "warning", "A device's message could not be decoded."
    ),
    "device_throttled": Event(
        "01277c6c4ef34c22bf9183292e90e3ab", "warning", "A device sends faster than its rate: readings were not kept."
    ),
    "device_replaced": Event(
        "878f4f00297847cba5c8a889ef4d55c7",
        "warning",
        "Two connections use the name of one device and keep replacing each other.",
    ),
    "device_closed": Event("dca4e0d1b5954969b379a25736a98aa0", "warning", "A device was disconnected for what it did."),
    "device_forgotten": Event(
        "a790c7fce7b54ba79015a63e89c140ce", "info", "A device was forgotten on request; its readings stay."
    ),
    "request_refused": Event(
        "1f998eb1a2b94ca4a98a02b76002d669",
        "warning",
        "A request was refused: host, origin, token, scope, a limit, or no such address.",
    ),
    "access_changed": Event(
        "2c77ec303a814d06ba95b76dda0c3b84", "info", "A token was made, revoked or changed, or a device let in."
    ),
}


# An attribute of an entry, as JSON has it, and its name in journald.
FIELDS: dict[str, str] = {
    "device": "DEVICE_ID",
    "reason": "REASON",
    "sink": "SINK",
    "token": "TOKEN_ID",
    "remote": "REMOTE",
    "code": "CODE",
    "count": "COUNT",
    "offset": "OFFSET",
    "path": "FILE",
    "hint": "HINT",
}
