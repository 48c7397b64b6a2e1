"""The report: one HTML file with everything in it, that reads without a network and without a script."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gridloom.core.atomic import write_text
from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.evaluate.compare import verdict
from gridloom.evaluate.table import Table, pivot
from gridloom.report.svg import SMALLEST, inline_svg

__all__ = ["Card", "Section", "render_page", "write_page"]

_MAGNIFY = 1.35
"""Size on the screen over size on paper: figures have small text for print."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS_PER_INCH = 200
"""Resolution of PNG figures (`gridloom.viz.style`)."""
_SCREEN_PIXELS_PER_INCH = 96


@dataclass(frozen=True, kw_only=True)
class Card:
    """A key figure for the strip at the top."""

    label: str
    """What it is: `skill against block means`."""
    value: str
    """The figure, ready to read: `0.41`."""
    note: str = ""
    """What qualifies it: `90 % interval 0.33 to 0.47`."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a heading."""

    title: str
    """Heading; also the entry in the table of contents."""
    text: str = ""
    """Plain text; an empty line starts a paragraph."""
    figures: Sequence[tuple[str, str | bytes]] = ()
    """Caption (also the alternative text) and picture: an SVG document as text, or a PNG as bytes."""
    tables: Sequence[str | Sequence[Score]] = ()
    """Scores, shown with intervals, the best in bold and a verdict; or text. HTML must come as `markupsafe.Markup`: all
    else is escaped."""


@dataclass(frozen=True)
class _Figure:
    caption: str
    html: str


@dataclass(frozen=True)
class _Scores:
    table: Table
    verdict: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    anchor: str
    title: str
    paragraphs: tuple[str, ...]
    figures: tuple[_Figure, ...]
    tables: tuple[str | _Scores, ...]


def render_page(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    *,
    command: str,
    config_yaml: str,
    versions: Mapping[str, str],
    warnings: Sequence[str] = (),
    cards: Sequence[Card] = (),
) -> str:
    """Make the page.

    Args:
        title: What was trained: `semantic on etopo20`.
        subtitle: One line on data, steps, time.
        sections: In the order of the page.
        command: The line that reproduces the result.
        config_yaml: The resolved configuration.
        versions: Versions by package.
        warnings: What a reader must know before believing anything; shown on top.
        cards: Key figures for the strip at the top.

    Returns:
        An HTML document that needs nothing outside itself.

    Raises:
        DataError: A figure that is neither SVG nor PNG, or without a caption.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("gridloom.report").joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        title=title,
        subtitle=subtitle,
        parts=[_part(section, number) for number, section in enumerate(sections, start=1)],
        command=command,
        config_yaml=config_yaml,
        versions=versions,
        warnings=warnings,
        cards=cards,
    )


def write_page(path: Path | str, html: str) -> None:
    """Write the page atomically."""
    write_text(path, html)


def _part(section: Section, number: int) -> _Part:
    """A section with its pictures as HTML and its scores as tables."""
    return _Part(
        anchor=f"section-{number}",
        title=section.title,
        paragraphs=tuple(text.strip() for text in section.text.split("\n\n") if text.strip()),
        figures=tuple(
            _Figure(caption, _picture(caption, picture, f"s{number}f{position}-"))
            for position, (caption, picture) in enumerate(section.figures, start=1)
        ),
        tables=tuple(
            table if isinstance(table, str) else _Scores(pivot(table), tuple(verdict(table).splitlines()))
            for table in section.tables
        ),
    )


def _picture(caption: str, picture: str | bytes, prefix: str) -> str:
    """A picture as trusted HTML with its alternative text."""
    from markupsafe import Markup

    if not caption.strip():
        raise DataError("a figure needs a caption, which is also what readers hear who do not see it; got none")
    if isinstance(picture, str):
        return Markup(inline_svg(picture, prefix, label=caption, magnify=_MAGNIFY))
    if not picture.startswith(_PNG_SIGNATURE):
        raise DataError(f"figure {caption!r}: expected SVG text or PNG bytes, got bytes starting {picture[:8]!r}")
    width, height = struct.unpack(">II", picture[16:24])
    shown = width / _PIXELS_PER_INCH * _SCREEN_PIXELS_PER_INCH * _MAGNIFY
    size = f"width: {shown:.0f}px; min-width: {SMALLEST * shown:.0f}px"
    return Markup('<img alt="{}" width="{}" height="{}" style="{}" src="data:image/png;base64,{}">').format(
        caption, width, height, size, base64.b64encode(picture).decode()
    )
