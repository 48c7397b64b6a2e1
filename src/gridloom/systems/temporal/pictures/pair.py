"""One fusion: the two latents, the moved one, what is left between them, how much it was trusted, and the result."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from gridloom.core.system import Drawing
from gridloom.systems.temporal.pictures.tiles import Tiles, scale_between, show, until
from gridloom.viz.flow import draw_flow_wheel, flow_colors, largest_motion
from gridloom.viz.slices import latent_rgb
from gridloom.viz.style import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Figure = Any

__all__ = ["PairFrames", "draw_pair"]

_WHEEL_CM = 0.95
_FOOT_CM = 1.45
_BETWEEN_CM = 0.1


@dataclass(frozen=True, kw_only=True)
class PairFrames:
    """A frame that was fused with the state before it.

    Attributes:
        previous: The state: the last fused frame.
        current: The frame, with flicker.
        warped: The state, moved onto the frame.
        fused: What came of it.
        clean: The frame without flicker.
        flow: From the frame to the one before, in cells; None where nothing was moved.
        valid: Where the past says something.
        alpha: Weight of the past, 0 where not valid.
        variance: Of the fused frame, in units of the noise of one frame.
        noise: Variance of the flicker by channel.
    """

    previous: Float[np.ndarray, "channel y x"]
    current: Float[np.ndarray, "channel y x"]
    warped: Float[np.ndarray, "channel y x"]
    fused: Float[np.ndarray, "channel y x"]
    clean: Float[np.ndarray, "channel y x"]
    flow: Float[np.ndarray, "2 y x"] | None
    valid: Bool[np.ndarray, "y x"]
    alpha: Float[np.ndarray, "y x"]
    variance: Float[np.ndarray, "y x"]
    noise: Shaped[np.ndarray, " channel"]

    @property
    def residual(self) -> np.ndarray:
        """Difference of the frame and the moved state, root of its mean square over channels, in units of the noise.

        NaN where the past says nothing.
        """
        squares = (self.current - self.warped).astype(np.float64) ** 2 / self.noise[:, None, None]
        return np.where(self.valid, np.sqrt(squares.mean(axis=0)), np.nan)

    def busiest(self, most: tuple[int, int]) -> "PairFrames":
        """Cut out at most so many rows and columns: those with most motion."""
        length = np.zeros(self.valid.shape) if self.flow is None else np.nan_to_num(np.hypot(*self.flow))
        rows, columns = (_busiest(length.sum(axis=1 - axis), most[axis]) for axis in (0, 1))
        parts: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[..., rows, columns]
            for name in ("previous", "current", "warped", "fused", "clean", "flow", "valid", "alpha", "variance")
        }
        return replace(self, **parts)


def _busiest(amount: np.ndarray, most: int) -> slice:
    """The stretch with the largest sum; all where it is short enough."""
    if len(amount) <= most:
        return slice(0, len(amount))
    start = int(np.convolve(amount, np.ones(most), mode="valid").argmax())
    return slice(start, start + most)


def draw_pair(pair: PairFrames, *, when: str, most: tuple[int, int], colors: bool | None = None) -> Drawing:
    """Draw all that becomes of a frame.

    Args:
        pair: The frames and maps.
        when: Which frame it is, for people.
        most: Rows and columns that are shown at most.
        colors: Whether channels are red, green, blue; see `latent_rgb`.

    Returns:
        Data: the arrays of `pair` as far as they are shown, and `residual`.
    """
    known, whole = float(pair.valid.mean()), pair.valid.shape
    pair = pair.busiest(most)
    frames = {
        "previous": "$z_{prev}$: state, fused before",
        "current": "$z_{cur}$: frame with flicker",
        "warped": "$z_{warp}$: state, moved",
        "fused": "$z_{fused}$",
        "clean": "clean frame",
    }
    images = latent_rgb([getattr(pair, name) for name in frames], colors=colors)
    residual = pair.residual
    height, width = residual.shape
    place = Tiles(feet=(_BETWEEN_CM, _FOOT_CM), columns=5, aspect=height / width)
    with style():
        made = place.figure()
        for column, (image, title) in enumerate(zip(images, frames.values(), strict=True)):
            show(place.axes(made, 0, column), image, title)
        _draw_flow(place, made, pair.flow, pair.valid.shape)
        scale = scale_between(0, until(residual), "magma", beyond=True)
        show(place.axes(made, 1, 1), residual, r"residual $|z_{cur} - z_{warp}|$", scale)
        place.bar(made, 1, 1, scale, "standard deviations\nof the flicker")
        _draw_mask(place, made, pair.valid)
        for column, title, values, cmap, label in (
            (3, r"weight of the past $\alpha$", pair.alpha, "viridis", "share of $z_{warp}$"),
            (4, "variance of $z_{fused}$", pair.variance, "cividis", "1: as uncertain\nas one frame"),
        ):
            scale = scale_between(0, 1, cmap)
            show(place.axes(made, 1, column), values, title, scale)
            place.bar(made, 1, column, scale, label)
    part = f" {height} x {width} cells of {whole[0]} x {whole[1]} are shown." if whole != (height, width) else ""
    chosen, told = "", "that nothing was moved"
    if pair.flow is not None:
        chosen = ", the one with the most motion that can be followed"
        told = "the flow to the frame before (the wheel's rim is its length in cells)"
    caption = (
        f"Fusion of {when}{chosen}. Above: the state of the filter, the frame as it came, the state moved onto it by "
        f"the flow, their mix, and the clean frame, in the same colors. Below: {told}, what is left between the frame "
        "and the moved state in standard deviations of the flicker (root mean square over channels; flicker alone "
        "leaves 1 to 1.4; gray where the past is not visible), where the past is visible "
        f"({100 * known:.0f} % of the cells), the weight of the past, and the variance of the result in units of the "
        f"flicker's.{part}"
    )
    names = ("previous", "current", "warped", "fused", "clean", "valid", "alpha", "variance", "noise")
    data = {name: np.asarray(getattr(pair, name)) for name in names} | {"residual": residual}
    if pair.flow is not None:
        data["flow"] = pair.flow
    return Drawing(figure=made, caption=caption, data=data)


def _draw_flow(place: Tiles, made: Figure, flow: np.ndarray | None, size: tuple[int, ...]) -> None:
    shown = np.zeros((2, *size), dtype=np.float32) if flow is None else flow
    largest = float(f"{largest_motion([shown]):.2g}")
    axes = place.axes(made, 1, 0)
    show(axes, flow_colors(shown, largest=largest), "no flow" if flow is None else "flow to the frame before")
    draw_flow_wheel(place.below(made, 1, 0, side=_WHEEL_CM), largest=largest)


def _draw_mask(place: Tiles, made: Figure, valid: np.ndarray) -> None:
    from matplotlib.patches import Patch

    scale = scale_between(0, 1, "gray")
    axes = place.axes(made, 1, 2)
    show(axes, np.where(valid, 1.0, 0.25), "mask", scale)
    handles = [
        Patch(facecolor="white", edgecolor="#888888", linewidth=0.4, label="past visible"),
        Patch(facecolor="#404040", edgecolor="#888888", linewidth=0.4, label="occluded or outside"),
    ]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=6.5, handlelength=1.0)
