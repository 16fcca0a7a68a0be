"""``gateway completion SHELL``."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish", "tcsh")
EPILOG = """\
  bash   gateway completion bash > /etc/bash_completion.d/gateway
  zsh    gateway completion zsh > "${fpath[1]}/_gateway"
  fish   gateway completion fish > ~/.config/fish/completions/gateway.fish
  tcsh   gateway completion tcsh > ~/.gateway.csh, and source it"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "completion",
        help="print what completes commands in a shell",
        description="Print a program for a shell that completes commands and options.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    import shtab

    from . import whole_parser

    print(shtab.complete(whole_parser(), options.shell))
    return 0
