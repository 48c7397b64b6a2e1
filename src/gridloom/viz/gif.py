"""Figures one after another."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gridloom.core.errors import DataError
from gridloom.viz.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Figure = Any

__all__ = ["to_gif"]


def to_gif(
    figures: Iterable[Figure], *, milliseconds: int = 900, dpi: int = 150, colors: int = 64, hold: int = 2
) -> bytes:
    """Draw figures as they come, and put them together to a GIF that repeats.

    Args:
        figures: In the order of time, all of one size; may be one figure that changes between.
        milliseconds: How long each stays.
        dpi: Dots per inch.
        colors: Of each picture, at most 256.
        hold: Times as long as the others that the last one stays.

    Raises:
        DataError: No figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    pictures = []
    for made in figures:
        made.set_dpi(dpi)
        canvas = FigureCanvasAgg(made)
        with style():
            canvas.draw()  # type: ignore[no-untyped-call]
        picture = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
        pictures.append(picture.convert("RGB").quantize(colors, dither=Image.Dither.NONE))
    if not pictures:
        raise DataError("a moving picture needs at least one figure, got none")
    buffer = io.BytesIO()
    durations = [milliseconds] * (len(pictures) - 1) + [hold * milliseconds]
    pictures[0].save(buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return buffer.getvalue()
