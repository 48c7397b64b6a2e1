"""Printing for people, and for programs."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["console", "print_json", "print_record"]

_WIDTH_OF_A_FILE = 140


def console() -> Console:
    """A console for results; wide where the output is not a terminal."""
    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else _WIDTH_OF_A_FILE, highlight=False)


def print_json(content: Any) -> None:
    """Print JSON alone."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def print_record(record: Mapping[str, Any], *, title: str = "") -> None:
    """Print names and values as two columns."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in record.items():
        number = isinstance(value, int) and not isinstance(value, bool)
        table.add_row(escape(name), f"{value:,}" if number else escape(str(value)))
    console().print(table)
