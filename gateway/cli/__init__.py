"""The command line: ``gateway COMMAND``.

One module a command, loaded only when it is the one asked for: ``version`` starts no database and no event loop.
Results go to stdout, notices to stderr.  Exit statuses: 0 done, 1 failed, 2 wrong usage, 69 unreachable, 75 in use by
another, 77 not allowed, 78 bad settings (sysexits.h).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence

from .. import __version__
from ..errors import GatewayError

__all__ = ["main", "whole_parser"]

# Command to (module, one line of help), in the order of the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "start the gateway"),
    "check-config": ("check_config", "check the settings and say what is wrong with them"),
    "config": ("config", "show the settings in force"),
    "token": ("token", "let devices, dashboards and scrapers in, and out"),
    "devices": ("devices", "list the devices, their states and what became of their readings"),
    "explain": ("explain", "tell where a device's readings went, and why any did not"),
    "dead-letters": ("dead_letters", "look at, retry or forget what sinks have refused"),
    "tail": ("tail", "print what becomes stored, as it does"),
    "top": ("top", "watch the busiest devices and the sinks"),
    "send": ("send", "send a command to a device, and say what becomes of it"),
    "export": ("export", "write what the history holds as CSV, JSON or line protocol"),
    "commands": ("commands", "list the commands that wait for devices, and give them up"),
    "simulate": ("simulate", "act as any number of devices"),
    "doctor": ("doctor", "look at all that the gateway needs, and say what to do"),
    "completion": ("completion", "print what completes commands in a shell"),
    "version": ("version", "print the version"),
}


def whole_parser(wanted: Collection[str] = COMMANDS.keys()) -> argparse.ArgumentParser:
    """The parser of the command line, with the arguments of the commands ``wanted``; of others just the name."""
    parser = argparse.ArgumentParser(prog="gateway", description="Bridges devices to dashboards.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (module, line) in COMMANDS.items():
        if name in wanted:
            importlib.import_module(f".{module}", __name__).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=line, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wanted = next((argument for argument in arguments if not argument.startswith("-")), "")
    options = whole_parser({wanted}).parse_args(arguments)
    try:
        status: int = options.run(options)
    except GatewayError as error:
        from ..logs.journald import takes_stderr

        level = "<3>" if takes_stderr() else ""  # an error, for journald (sd-daemon(3))
        for line in [*str(error).splitlines(), *filter(None, [error.hint])]:
            print(f"{level}gateway: {line}", file=sys.stderr)
        return int(getattr(error, "exit_status", 1))
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away: say nothing more
        return 1
    except KeyboardInterrupt:
        return 130
    return status
