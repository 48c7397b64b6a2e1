"""Baselines for reconstruction: the mean field, and a field squeezed into as many numbers as a latent has."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float64

from gridloom.core.errors import ConfigError, DataError
from gridloom.evaluate.baselines.answer import answer_each, global_means, mean_over, require_dims

__all__ = ["BlockMean", "MeanField", "block_grid"]


class MeanField:
    """Answers with the history's mean of each cell; with the mean of everything where the history knows no value."""

    def __init__(self, history: xr.Dataset, sample_dim: str = "sample") -> None:
        """Average the history.

        Args:
            history: Training part in data units; NaN is missing.
            sample_dim: Dimension to average over.
        """
        overall = global_means(history)
        self._means = {
            str(name): mean_over(require_dims(history, str(name), (sample_dim,), "history"), (sample_dim,))
            .fillna(overall[str(name)])
            .drop_vars(history.coords, errors="ignore")
            for name in history.data_vars
        }

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`; `given` is not looked at."""

        def answer(name: str) -> xr.DataArray:
            if name not in self._means:
                raise DataError(f"expected one of the history's variables {sorted(self._means)}, got {name!r}")
            return self._means[name]

        return answer_each(wanted, answer)


class BlockMean:
    """Squeezes each sample into at most `num_values` block means, and interpolates them back bilinearly.

    The dumb compressor: as many numbers as a latent, no learning. Blocks average the known cells; a block without any
    takes its sample's mean over known blocks, a field without any 0.
    """

    def __init__(
        self, num_values: int, *, spatial_dims: Sequence[str] = ("y", "x"), sample_dims: Sequence[str] = ("sample",)
    ) -> None:
        """Choose the budget.

        Args:
            num_values: Numbers for one sample, over all its variables, channels and times together.
            spatial_dims: Names of rows and columns.
            sample_dims: Dimensions that number the samples. Any other dimension (channel, time) belongs to a sample
                and shares its budget.
        """
        if num_values < 1 or len(spatial_dims) != 2:
            raise ConfigError(
                f"block means need num_values >= 1 and two spatial_dims, got {num_values} and {tuple(spatial_dims)}"
            )
        self.num_values, self.spatial_dims, self.sample_dims = num_values, tuple(spatial_dims), tuple(sample_dims)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted` from the same sample of `given`."""
        names = [str(name) for name in wanted.data_vars]
        fields = {name: require_dims(given, name, self.spatial_dims, "given") for name in names}
        planes = sum(self._planes(values) for values in fields.values())
        if planes > self.num_values:
            raise ConfigError(f"block means: {self.num_values} values cannot hold {planes} fields of one sample")

        def answer(name: str) -> xr.DataArray:
            values = fields[name].transpose(..., *self.spatial_dims)
            squeezed = _squeeze(values.values.astype(np.float64), self.num_values // planes)
            return values.copy(data=squeezed)

        return answer_each(wanted, answer)

    def _planes(self, values: xr.DataArray) -> int:
        """Fields (planes of rows and columns) in one sample of a variable."""
        apart = {*self.spatial_dims, *self.sample_dims}
        return int(np.prod([size for dim, size in values.sizes.items() if dim not in apart]))


def block_grid(height: int, width: int, num_values: int) -> tuple[int, int]:
    """Rows and columns of at most `num_values` blocks: the longest side as short as can be, then the area."""

    def order(rows: int) -> tuple[float, float]:
        sides = height / rows, width / min(width, num_values // rows)
        return max(sides), sides[0] * sides[1]

    rows = min(range(1, min(height, num_values) + 1), key=order)
    return rows, min(width, num_values // rows)


def _squeeze(values: np.ndarray, num_values: int) -> np.ndarray:
    """Block means and back, [..., height, width]."""
    height, width = values.shape[-2:]
    rows, columns = block_grid(height, width, num_values)
    down, across = _averaging(height, rows), _averaging(width, columns)
    known = np.isfinite(values)
    weight = down @ known @ across.T
    total = down @ np.where(known, values, 0.0) @ across.T
    means = np.divide(total, weight, out=np.zeros(total.shape), where=weight > 0)
    count = (weight > 0).sum(axis=(-2, -1), keepdims=True)
    level = means.sum(axis=(-2, -1), keepdims=True) / np.maximum(count, 1)
    means = np.where(weight > 0, means, level)
    rebuilt: np.ndarray = _interpolation(height, rows) @ means @ _interpolation(width, columns).T
    return rebuilt


def _edges(size: int, blocks: int) -> np.ndarray:
    return np.linspace(0.0, size, blocks + 1, dtype=np.float64)


def _averaging(size: int, blocks: int) -> Float64[np.ndarray, "blocks size"]:
    """Share of each cell that lies in each block; blocks may cut cells."""
    edges, cells = _edges(size, blocks), np.arange(size)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.asarray(np.maximum(overlap, 0.0))


def _interpolation(size: int, blocks: int) -> Float64[np.ndarray, "size blocks"]:
    """Weights of the blocks' centers at each cell's center; constant beyond the outermost."""
    centers = (_edges(size, blocks)[1:] + _edges(size, blocks)[:-1]) / 2
    return np.stack([np.interp(np.arange(size) + 0.5, centers, row) for row in np.eye(blocks)], axis=1)
