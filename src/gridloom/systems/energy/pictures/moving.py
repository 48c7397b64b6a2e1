"""Figures one after another."""

import io
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["to_gif"]


def to_gif(frame: Callable[[int], Any], numbers: Sequence[int], *, milliseconds: int = 900, dpi: int = 150) -> bytes:
    """Draw figures by number, and put them together to a GIF that repeats; the last one stays twice as long.

    Args:
        frame: Makes the figure of a number; all of one size.
        numbers: In the order of time.
        milliseconds: How long each stays.
        dpi: Dots per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    pictures = []
    for number in numbers:
        made = frame(number)
        made.set_dpi(dpi)
        canvas = FigureCanvasAgg(made)
        canvas.draw()  # type: ignore[no-untyped-call]
        picture = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))  # type: ignore[no-untyped-call]
        pictures.append(picture.convert("RGB").quantize(64, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    durations = [milliseconds] * (len(pictures) - 1) + [2 * milliseconds]
    pictures[0].save(buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return buffer.getvalue()
