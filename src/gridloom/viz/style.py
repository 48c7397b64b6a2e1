"""One style for every figure: sizes in centimeters, small legible text, colors that color-blind readers can tell apart.

Figures are made without pyplot: none is held in global state, and a figure that is not referenced is gone.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridloom.core.atomic import write_bytes
from gridloom.core.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Figure = Any

__all__ = [
    "COLORS",
    "COLUMN_CM",
    "DIVERGING",
    "FULL_CM",
    "MISSING",
    "SEQUENTIAL",
    "figure",
    "save",
    "settle",
    "style",
    "to_png_bytes",
    "to_svg",
]

COLUMN_CM = 9.0
"""Width of one column of a page."""
FULL_CM = 18.0
"""Width of a page."""
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colors for categories, distinct under color-blindness (Okabe & Ito 2008, "Color universal design")."""
SEQUENTIAL = "viridis"
"""Perceptually uniform map for magnitudes."""
DIVERGING = "RdBu_r"
"""Map for errors and anomalies, always centered at 0."""
MISSING = "#d9d9d9"
"""Flat gray of cells without a value; no map in use has it."""

_CM_PER_INCH = 2.54
_PNG_DPI = 200


@contextmanager
def style() -> Iterator[None]:
    """Apply the style to everything that is drawn inside the block; the settings outside stay as they are."""
    import matplotlib as mpl
    from cycler import cycler

    settings: Any = {
        "font.family": "sans-serif",
        "font.size": 7.5,
        "axes.titlesize": 8,
        "axes.labelsize": 7.5,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 7,
        "legend.frameon": False,
        "legend.handlelength": 1.4,
        "axes.linewidth": 0.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#444444",
        "axes.labelcolor": "#222222",
        "axes.axisbelow": True,
        "axes.prop_cycle": cycler(color=COLORS),
        "axes.formatter.use_mathtext": True,
        "axes.formatter.limits": (-3, 5),
        "axes.unicode_minus": True,
        "text.color": "#222222",
        "xtick.color": "#444444",
        "ytick.color": "#444444",
        "xtick.labelcolor": "#222222",
        "ytick.labelcolor": "#222222",
        "xtick.major.width": 0.5,
        "ytick.major.width": 0.5,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "xtick.major.size": 2.5,
        "ytick.major.size": 2.5,
        "xtick.minor.size": 1.5,
        "ytick.minor.size": 1.5,
        "lines.linewidth": 1.2,
        "lines.markersize": 4,
        "hatch.linewidth": 0.4,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.5,
        "figure.dpi": _PNG_DPI,
        "savefig.dpi": _PNG_DPI,
        "image.interpolation": "nearest",
        "svg.fonttype": "none",
        "svg.hashsalt": "gridloom",
    }
    with mpl.rc_context(settings):
        yield


def figure(*, width_cm: float | int = COLUMN_CM, height_cm: float | int = 6.0, constrained: bool = True) -> Figure:
    """Make an empty figure of a size on paper.

    Args:
        width_cm: `COLUMN_CM` or `FULL_CM`, or what else is needed.
        height_cm: Height.
        constrained: Let matplotlib keep labels from overlapping; False where axes are placed by hand.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    size = (width_cm / _CM_PER_INCH, height_cm / _CM_PER_INCH)
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03) if constrained else None  # inches
    return Figure(figsize=size, layout=engine, facecolor="white")


def settle(figure: Figure) -> None:
    """Lay a figure out once and for all: matplotlib's layout goes on moving a little with every drawing."""
    if figure.get_layout_engine() is not None:
        with style():
            figure.draw_without_rendering()
        figure.set_layout_engine("none")


def to_png_bytes(figure: Figure) -> bytes:
    """Draw a figure as PNG, 200 dots per inch; the same figure always gives the same bytes."""
    settle(figure)
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


def to_svg(figure: Figure) -> str:
    """Draw a figure as SVG, text as text; the same figure always gives the same text (no date, fixed ids)."""
    settle(figure)
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path | str) -> None:
    """Write a figure atomically, as PNG or SVG by the suffix.

    Raises:
        DataError: Another suffix.
    """
    path = Path(path)
    if path.suffix == ".png":
        content = to_png_bytes(figure)
    elif path.suffix == ".svg":
        content = to_svg(figure).encode()
    else:
        raise DataError(f"{path}: a figure is saved as .png or .svg, got suffix {path.suffix!r}")
    write_bytes(path, content)
