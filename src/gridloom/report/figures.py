"""Pictures that every run has: the loss, the parts on the map, the embeddings and their neighbors, the skill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gridloom.core.contracts import Encoder, Source
from gridloom.core.score import Score
from gridloom.core.system import View
from gridloom.evaluate.neighbors import nearest, project
from gridloom.viz.curve import bars, curves
from gridloom.viz.embedding import embedding_map, neighbor_strip
from gridloom.viz.place import describe_place
from gridloom.viz.style import FULL_CM

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

__all__ = ["Embedded", "draw_embeddings", "draw_loss", "draw_neighbors", "draw_skill", "embed_source"]

_ENCODE_AT_ONCE = 64
_NUM_QUERIES = 4
_NUM_NEIGHBORS = 5
_LOWEST_SKILL = -2.0


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Windows of a source with their embeddings.

    Attributes:
        embeddings: [windows, features].
        tiles: First channel of the image field, [windows, height, width], NaN where missing.
        coordinates: Where the windows lie.
    """

    embeddings: np.ndarray
    tiles: np.ndarray
    coordinates: Mapping[str, np.ndarray]


@torch.inference_mode()
def embed_source(encoder: Encoder, source: Source, *, most: int, origin: str = "upper") -> Embedded | None:
    """Embed windows spread evenly over a source; None where its first field is no image.

    Args:
        encoder: In eval mode.
        source: Where the windows come from.
        most: At most so many.
        origin: `lower` where the first row of a window belongs at the bottom of a picture; tiles are then turned.
    """
    name, spec = next(iter(encoder.inputs.fields.items()))
    if spec.dims[-2:] != ("y", "x"):
        return None
    windows = np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(np.int64)).tolist()
    device = next(encoder.parameters()).device
    embeddings, tiles = [], []
    for start in range(0, len(windows), _ENCODE_AT_ONCE):
        batch = source.collate(windows[start : start + _ENCODE_AT_ONCE], 0)
        field = batch.fields[name]
        embeddings.append(encoder(batch.to(device))["embedding"].float().cpu().numpy())
        values = torch.where(field.valid, field.values.float(), torch.nan)
        if values.ndim > len(spec.dims) + 1:  # a window in time, of which the encoder takes the last frame
            values = values[:, -1]
        tile = values.reshape(len(values), -1, *values.shape[-2:])[:, 0]
        tiles.append((tile.flip(-2) if origin == "lower" else tile).numpy())
    return Embedded(
        embeddings=np.concatenate(embeddings),
        tiles=np.concatenate(tiles),
        coordinates=source.coordinates(windows),
    )


def draw_loss(metrics: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Loss over steps, training and validation."""
    series = {}
    for part in ("train", "validation"):
        points = [(record["step"], record["loss"]) for record in metrics if record["part"] == part]
        if points:
            steps, values = np.array(points, dtype=np.float64).T
            series[part] = (steps, values)
    if not series:
        return None
    positive = all((values > 0).all() for _, values in series.values())
    return curves(series, xlabel="optimizer step", ylabel="loss per sample", log=positive)


def draw_embeddings(embedded: Embedded, label: str | None) -> Figure:
    """The embeddings on their first two principal components, with thumbnails; colored by label where there is one."""
    labels = None if label is None else np.asarray(embedded.coordinates[label])
    return embedding_map(
        project(embedded.embeddings), thumbnails=embedded.tiles, labels=labels, width_cm=0.75 * FULL_CM
    )


def draw_neighbors(queries: Embedded, among: Embedded) -> Figure:
    """Held-out windows, each with the training windows whose embeddings are most similar."""
    chosen = np.unique(np.linspace(0, len(queries.tiles) - 1, _NUM_QUERIES).round().astype(np.int64))
    count = min(_NUM_NEIGHBORS, len(among.tiles))
    indices, similarity = nearest(among.embeddings, queries.embeddings[chosen], count)
    return neighbor_strip(
        queries.tiles[chosen],
        among.tiles[indices],
        similarity,
        [[_where(among.coordinates, int(index)) for index in row] for row in indices],
        query_captions=[_where(queries.coordinates, int(index)) for index in chosen],
        scale="all",
        width_cm=FULL_CM,
    )


def _where(coordinates: Mapping[str, np.ndarray], index: int) -> str:
    return describe_place(
        {name: float(values[index]) for name, values in coordinates.items() if values.dtype.kind in "iuf"}
    )


def draw_skill(view: View) -> Figure | None:
    """Skill of the methods against the best baseline; those far below it would squeeze the others and are left out."""
    scores: list[Score] = [s for s in view.scores if s.metric == "skill" and s.value > _LOWEST_SKILL]
    return bars(scores, metric="skill") if scores else None
