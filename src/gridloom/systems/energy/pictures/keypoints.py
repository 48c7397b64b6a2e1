"""From feature maps to positions: the soft-argmax."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import (
    MINIMUM_COLOR,
    Plane,
    border,
    check,
    finish,
    key,
    ring,
    side_bar,
    stacked,
)
from gridloom.viz.scale import ColorScale, color_scale
from gridloom.viz.style import COLUMN_CM, figure, style

__all__ = ["soft_argmax"]

_CHANNELS = 4
_BLIND = 0.98
"""Share of the greatest entropy above which a map says nothing: its position is the middle of the image."""


def soft_argmax(
    image: np.ndarray,
    maps: Shaped[np.ndarray, "channels h w"],
    weights: Shaped[np.ndarray, "weights_channels weights_h weights_w"],
    *,
    expected: Shaped[np.ndarray, "expected_channels two"],
    chosen: Sequence[int] | None = None,
) -> Drawing:
    """Draw how feature maps become positions: map, softmax weights, expected position; and all positions on the image.

    Args:
        image: [h, w] or [h, w, 3] from 0 to 1.
        maps: Feature maps before the softmax.
        weights: Their softmax over all cells.
        expected: (row, column) of each channel from -1 to 1, as the model computed them.
        chosen: Channels drawn; None takes four from the most certain to the least.

    Returns:
        Data: `maps` and `weights` of the channels drawn, `expected` of all, `chosen`, `entropy` (of all channels, as a
        share of the greatest, 0 to 1), `peak` (greatest weight), `deviation` (of the weights around the expected
        position, in cells).

    Raises:
        DataError: Arrays that do not belong together, weights that are no softmax, or channels that there are not.
    """
    _check(image, maps, weights, expected, chosen)
    channels, height, width = maps.shape
    plane = Plane.of((height, width))
    flat = weights.reshape(channels, -1).astype(np.float64)
    entropy = np.maximum(-(flat * np.log(np.maximum(flat, 1e-300))).sum(1) / np.log(max(2, flat.shape[1])), 0)
    picked = list(chosen) if chosen is not None else _between(entropy)
    deviation = _deviation(flat, plane, expected)
    data = {"maps": maps[picked], "weights": weights[picked], "expected": expected, "chosen": np.array(picked)}
    data |= {"entropy": entropy, "peak": flat.max(1), "deviation": deviation}
    tall = 2.4 * min(1.2, height / width)
    with style():
        heights = [3.4 * min(1.2, height / width) + 1.6, len(picked) * (tall + 0.45) + 0.8]
        made = figure(width_cm=COLUMN_CM, height_cm=sum(heights))
        upper, lower = stacked(made, heights)
        _overlay(upper, image, plane, data)
        panels = lower.subplots(len(picked), 2, squeeze=False, sharex=True, sharey=True)
        for row, channel in enumerate(picked):
            _row(lower, panels[row], plane, data, row=row, channel=channel)
        finish(made)
    caption = (
        "Feature maps (left), their softmax weights (right, a scale of their own each) and the expected position "
        "(ring) that is handed on, for channels from certain to uncertain; above, the positions of all channels on the "
        "image. Entropy is a share of its greatest value: at 1 a map says nothing and its position is the middle."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _overlay(made: Any, image: np.ndarray, plane: Plane, data: dict[str, np.ndarray]) -> None:
    """All positions on the image; gray where the weights are flat."""
    axes = made.add_subplot()
    plane.image(axes, image)
    axes.set_title(f"positions of all {len(data['expected'])} channels")
    plane.name(axes)
    for channel, (row, column) in enumerate(plane.place(data["expected"])):
        blind = data["entropy"][channel] > _BLIND
        look = {"color": "#777777"} if blind else {"color": MINIMUM_COLOR, "alpha": 0.8}
        axes.plot(column, row, "o", markersize=4, markeredgecolor="white", markeredgewidth=0.5, **look)
    dot = {"marker": "o", "markersize": 4}
    entries = {"expected position": {**dot, "color": MINIMUM_COLOR}, "of flat weights": {**dot, "color": "#777777"}}
    key(made, entries, columns=2)


def _row(made: Any, panels: Any, plane: Plane, data: dict[str, np.ndarray], *, row: int, channel: int) -> None:
    """One channel: its map and its weights."""
    from matplotlib.ticker import MaxNLocator

    y = plane.place(data["expected"][channel])
    for axes, name in zip(panels, ("maps", "weights"), strict=True):
        shown = data[name][row]
        scale = _scale(shown, weights=name == "weights")
        axes.imshow(shown, cmap=scale.cmap, norm=scale.norm, extent=plane.box(_FULL, plane.cells), aspect=plane.aspect)
        plane.frame(axes)
        border(axes)
        ring(axes, y[1], y[0], size=8)
        plane.name(axes, row=name == "maps", column=row == len(data["chosen"]) - 1)
        side_bar(
            made,
            axes,
            scale,
            "feature" if name == "maps" else "weight",
            aspect=14,
            ticks=MaxNLocator(nbins=3),
            format="%g",
        )
    panels[0].set_title(f"channel {channel}: ({y[0]:.1f}, {y[1]:.1f})")
    panels[1].set_title(f"entropy {data['entropy'][channel]:.2f}, peak {data['peak'][channel]:.1g}")


def _scale(shown: np.ndarray, *, weights: bool) -> ColorScale:
    """The whole range of features; weights from 0 to the greatest."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    if not weights:
        return color_scale([shown], clip=0.0)
    return ColorScale(norm=Normalize(0.0, float(shown.max())), cmap=mpl.colormaps["cividis"], extend="neither")


def _between(entropy: np.ndarray) -> list[int]:
    """Channels from the least entropy to the greatest, with steps of entropy as even as there are."""
    chosen: list[int] = []
    for wanted in np.linspace(entropy.min(), entropy.max(), min(_CHANNELS, len(entropy))):
        off = np.abs(entropy - wanted)
        off[chosen] = np.inf
        chosen.append(int(off.argmin()))
    return sorted(chosen, key=lambda channel: float(entropy[channel]))


_FULL = np.array([[-1.0, -1.0], [1.0, 1.0]])


def _deviation(flat: np.ndarray, plane: Plane, expected: np.ndarray) -> np.ndarray:
    """Standard deviation of the weights around the expected positions, in cells."""
    axes = [np.linspace(-1, 1, count) if count > 1 else np.zeros(1) for count in plane.cells]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    squared = plane.distance(cells[None], expected[:, None]) ** 2
    return np.asarray(np.sqrt((flat * squared).sum(1)))


def _check(
    image: np.ndarray, maps: np.ndarray, weights: np.ndarray, expected: np.ndarray, chosen: Sequence[int] | None
) -> None:
    """Refuse what does not belong together."""
    check(maps.shape == weights.shape, f"weights like maps {list(maps.shape)}", list(weights.shape))
    check(expected.shape == (len(maps), 2), f"positions [{len(maps)}, 2]", list(expected.shape))
    check(image.ndim in (2, 3) and image.shape[:2] == maps.shape[1:], f"image {list(maps.shape[1:])}", image.shape)
    sums = weights.reshape(len(weights), -1).sum(1)
    check(bool(np.allclose(sums, 1, atol=1e-3)), "weights that sum to 1", f"sums {sums.min():.3g} to {sums.max():.3g}")
    check(len(maps) > 0, "at least one channel", len(maps))
    if chosen is not None:
        fits = len(chosen) > 0 and all(0 <= channel < len(maps) for channel in chosen)
        check(fits, f"channels 0 to {len(maps) - 1}", list(chosen))
