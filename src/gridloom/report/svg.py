"""SVG made fit to stand inside a page: ids of its own, nothing from outside, nothing that runs."""

import re
import xml.etree.ElementTree as ElementTree

from gridloom.core.errors import DataError

__all__ = ["SMALLEST", "inline_svg"]

_DROPPED = {"metadata", "script", "style", "foreignObject", "title", "desc"}
_LOCAL = re.compile(r"url\(\s*['\"]?#([^'\")\s]+)['\"]?\s*\)")
_POINTS_TO_PIXELS = 96 / 72

SMALLEST = 0.6
"""Figures shrink to this share of their size on narrow screens; beyond, they scroll, so that text can be read."""


def inline_svg(svg: str, prefix: str, *, label: str, magnify: float | int = 1.0) -> str:
    """Rewrite an SVG document as an element for an HTML page.

    Ids and the references to them get a prefix, so that several figures do not take each other's clip paths. Style
    sheets go (a `*` in one would style the whole page; matplotlib's only rule becomes an attribute), and so do scripts,
    handlers, and whatever is not in the file itself.

    Args:
        svg: An SVG document, as `gridloom.viz.style.to_svg` makes it.
        prefix: Starts every id; another one for each figure of a page.
        label: What a screen reader says.
        magnify: Size on the page over size on paper.

    Raises:
        DataError: Not well-formed XML, or not SVG.
    """
    try:
        root = ElementTree.fromstring(svg)
    except ElementTree.ParseError as error:
        raise DataError(f"expected an SVG document, got something that is not XML ({error})") from None
    if _local_name(root.tag) != "svg":
        raise DataError(f"expected an SVG document, got <{_local_name(root.tag)}>")
    _clean(root, prefix)
    width, height = _size(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.setdefault("viewBox", f"0 0 {width:g} {height:g}")
    root.set("role", "img")
    root.set("aria-label", label)
    pixels = width * _POINTS_TO_PIXELS * magnify
    size = f"width: {pixels:.0f}px; min-width: {SMALLEST * pixels:.0f}px"
    root.set("style", f"{size}; stroke-linejoin: round; stroke-linecap: butt")
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, prefix: str) -> None:
    """Bring an element and all below it into the page's terms."""
    element.tag = _local_name(element.tag)
    attributes = {_local_name(name): value for name, value in element.attrib.items()}
    element.attrib.clear()
    for name, value in attributes.items():
        kept = _attribute(name, value, prefix)
        if kept is not None:
            element.set(name, kept)
    for child in list(element):
        if not isinstance(child.tag, str) or _local_name(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, prefix)


def _attribute(name: str, value: str, prefix: str) -> str | None:
    """The attribute's value with prefixed ids, or None where it has no place in the page."""
    if name.lower().startswith("on"):
        return None
    if name == "id":
        return f"{prefix}{value}"
    if name == "href":
        if value.startswith("#"):
            return f"#{prefix}{value[1:]}"
        return value if value.startswith("data:image/png;base64,") else None
    rewritten = _LOCAL.sub(rf"url(#{prefix}\1)", value)
    return None if "url(" in _LOCAL.sub("", value) else rewritten


def _size(root: ElementTree.Element) -> tuple[float, float]:
    """Width and height in points."""
    box = root.get("viewBox", "").replace(",", " ").split()
    try:
        if len(box) == 4:
            return float(box[2]), float(box[3])
        return float(root.get("width", "").removesuffix("pt")), float(root.get("height", "").removesuffix("pt"))
    except ValueError:
        raise DataError("expected an SVG with a viewBox, or width and height in points") from None


def _local_name(name: str) -> str:
    """Name without its namespace."""
    return name.rsplit("}", 1)[-1]
