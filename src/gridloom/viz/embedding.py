"""Embeddings: a map of points with thumbnails, and rows of nearest neighbors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Shaped

from gridloom.core.errors import DataError
from gridloom.viz.scale import ColorScale, color_scale
from gridloom.viz.style import COLORS, COLUMN_CM, figure, settle, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = ["embedding_map", "neighbor_strip", "spread_out"]

_SHAPES = "osD^v"
_THUMBNAIL_CM = 0.8
_SPACING = 1.3  # some room between thumbnails, for the dots


def embedding_map(
    points: Shaped[np.ndarray, "items 2"],
    *,
    thumbnails: Shaped[np.ndarray, "thumbnails height width"] | None = None,
    labels: Shaped[np.ndarray, " labels"] | None = None,
    values: Shaped[np.ndarray, " values"] | None = None,
    value_label: str = "",
    axis_label: str = "principal component",
    width_cm: float | int = COLUMN_CM,
) -> Figure:
    """Draw embeddings in the plane.

    Args:
        points: Places in the plane, for example the first two principal components.
        thumbnails: A picture of each item; as many are drawn as find room without overlap. NaN is gray; all share one
            color scale.
        labels: Class of each item, for colors and a legend.
        values: A number for each item, for colors and a color bar; not together with labels.
        value_label: Name and unit of the values.
        axis_label: What the axes are; they get the numbers 1 and 2.
        width_cm: Width; the height follows.

    Raises:
        DataError: Both labels and values, or arrays of other lengths.
    """
    _check_map(points, thumbnails, labels, values)
    with style():
        made = figure(width_cm=width_cm, height_cm=0.82 * width_cm)
        axes = made.add_subplot()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{axis_label} 1")
        axes.set_ylabel(f"{axis_label} 2")
        axes.margins(0.07)
        _scatter(made, axes, points, labels=labels, values=values, value_label=value_label)
        if thumbnails is not None:
            settle(made)  # so that distances on paper are known
            _draw_thumbnails(axes, points, thumbnails)
    return made


def neighbor_strip(
    queries: Shaped[np.ndarray, "queries height width"],
    neighbors: Shaped[np.ndarray, "queries k height width"],
    distances: Shaped[np.ndarray, "queries k"],
    captions: Sequence[Sequence[str]] | None = None,
    *,
    query_captions: Sequence[str] | None = None,
    scale: Literal["tile", "row", "all"] = "row",
    width_cm: float | int = COLUMN_CM,
) -> Figure:
    """Draw each query with its nearest neighbors beside it.

    Args:
        queries: NaN is gray.
        neighbors: The nearest first.
        distances: Of each neighbor (or similarities); written under it.
        captions: More about each neighbor, written under the distance.
        query_captions: Written under each query.
        scale: Whether colors are comparable within a tile, a row, or the whole figure.
        width_cm: Width; the height follows.

    Raises:
        DataError: Nothing to draw, or captions that do not fit the neighbors.
    """
    num_queries, k, height, width = neighbors.shape
    if num_queries == 0 or k == 0:
        raise DataError(f"nothing to draw: expected queries and neighbors, got {num_queries} and {k}")
    if captions is not None and [len(row) for row in captions] != [k] * num_queries:
        raise DataError(f"expected captions for {num_queries} x {k} neighbors, got {[len(row) for row in captions]}")
    if query_captions is not None and len(query_captions) != num_queries:
        raise DataError(f"expected one caption per query ({num_queries}), got {len(query_captions)}")
    gap, query_gap, text, top, edge = 0.12, 0.35, 0.45 if captions is None else 0.75, 0.5, 0.1
    tile = (width_cm - 2 * edge - query_gap - (k - 1) * gap) / (k + 1)
    step = tile * height / width + text
    total = top + num_queries * step
    everything = color_scale([queries, neighbors]) if scale == "all" else None
    with style():
        made = figure(width_cm=width_cm, height_cm=total, constrained=False)
        for row in range(num_queries):
            shared = color_scale([queries[row], neighbors[row]]) if scale == "row" else everything
            for column in range(k + 1):
                x = edge + column * (tile + gap) + (query_gap - gap if column else 0.0)
                y = total - top - row * step - tile * height / width
                axes = made.add_axes((x / width_cm, y / total, tile / width_cm, (step - text) / total))
                image = neighbors[row, column - 1] if column else queries[row]
                _tile(axes, image, shared or color_scale([image]), strong=column == 0)
                if column:
                    note = f"{distances[row, column - 1]:#.3g}"
                    note = f"{note}\n{captions[row][column - 1]}" if captions else note
                else:
                    note = query_captions[row] if query_captions else ""
                axes.set_xlabel(note, labelpad=2, fontsize=7)
                if row == 0 and column < 2:
                    axes.set_title("nearest neighbors" if column else "query", loc="left", pad=3)
    return made


def spread_out(places: Shaped[np.ndarray, "items 2"], size: tuple[float, float]) -> list[int]:
    """Choose items whose boxes of this size, centered at their places, do not overlap.

    The outermost comes first, then each next one toward the middle that finds room.
    """
    distance = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    chosen: list[int] = []
    for item in np.argsort(-distance, kind="stable"):
        apart = np.abs(places[chosen] - places[item]) >= np.asarray(size)
        if apart.any(axis=1).all():
            chosen.append(int(item))
    return chosen


def _scatter(
    made: Figure,
    axes: Axes,
    points: np.ndarray,
    *,
    labels: np.ndarray | None,
    values: np.ndarray | None,
    value_label: str,
) -> None:
    """Dots, colored by class or number, with their legend."""
    size = float(np.clip(4000.0 / max(len(points), 1), 3.0, 14.0))
    if labels is not None:
        for number, label in enumerate(np.unique(labels)):
            chosen = points[labels == label]
            axes.scatter(
                chosen[:, 0],
                chosen[:, 1],
                s=size,
                color=COLORS[number % len(COLORS)],
                marker=_SHAPES[number // len(COLORS) % len(_SHAPES)],
                linewidths=0,
                alpha=0.8,
                label=str(label),
            )
        made.legend(loc="outside upper left", ncols=10, markerscale=1.4, columnspacing=0.9, handletextpad=0.1)
        return
    dots = axes.scatter(
        points[:, 0], points[:, 1], s=size, c=COLORS[0] if values is None else values, linewidths=0, alpha=0.8
    )
    if values is not None:
        bar = made.colorbar(dots, ax=axes, label=value_label, fraction=0.05, pad=0.02)
        bar.outline.set_linewidth(0.4)


def _draw_thumbnails(axes: Axes, points: np.ndarray, thumbnails: np.ndarray) -> None:
    """Pictures at their points, where there is room."""
    from matplotlib.patches import Rectangle

    height, width = thumbnails.shape[1:]
    side = _THUMBNAIL_CM * axes.figure.dpi / 2.54 / max(height, width)
    half = np.array([width, height]) * side / 2
    scale = color_scale([thumbnails])
    places = axes.transData.transform(points)
    axes.autoscale(False)
    for item in spread_out(places, (2 * _SPACING * half[0], 2 * _SPACING * half[1])):
        (west, south), (east, north) = axes.transData.inverted().transform([places[item] - half, places[item] + half])
        axes.imshow(
            thumbnails[item],
            norm=scale.norm,
            cmap=scale.cmap,
            extent=(west, east, south, north),
            aspect="auto",
            zorder=3,
            clip_on=False,
        )
        frame = Rectangle((west, south), east - west, north - south, fill=False, edgecolor="#444444", linewidth=0.5)
        axes.add_patch(frame)
        frame.set(zorder=4, clip_on=False)


def _tile(axes: Axes, image: np.ndarray, scale: ColorScale, *, strong: bool) -> None:
    """One picture in a frame; the query's frame is strong."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.imshow(image, norm=scale.norm, cmap=scale.cmap, aspect="auto")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(1.2 if strong else 0.4)
        spine.set_edgecolor("#222222" if strong else "#888888")


def _check_map(
    points: np.ndarray, thumbnails: np.ndarray | None, labels: np.ndarray | None, values: np.ndarray | None
) -> None:
    """Refuse what cannot be drawn."""
    if labels is not None and values is not None:
        raise DataError("colors show labels or values, got both")
    for what, given in (("thumbnails", thumbnails), ("labels", labels), ("values", values)):
        if given is not None and len(given) != len(points):
            raise DataError(f"expected {what} for {len(points)} points, got {len(given)}")
    if len(points) == 0 or not np.isfinite(points).all():
        raise DataError("expected at least one point, all of them finite")
