"""Writes the documents where they are served from."""

from __future__ import annotations

from pathlib import Path

from .. import server
from . import documents


def main() -> None:
    """Write what has changed, and say so."""
    folder = Path(server.__file__).parent / "static"
    for name, text in documents().items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{name} written")


if __name__ == "__main__":
    main()
