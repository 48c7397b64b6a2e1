"""The rival of a latent map: principal components of small patches, each squeezed by itself."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.answer import require_dims
from gridloom.evaluate.baselines.pca import PCAReconstruction

__all__ = ["PatchPCA"]

_MOST_PATCHES = 20_000


class PatchPCA:
    """Cuts each sample into patches side by side and reconstructs each from its own few components.

    Patches without a known cell are answered with the mean patch.
    """

    def __init__(
        self,
        history: xr.Dataset,
        num_components: int,
        *,
        patch: int,
        sample_dim: str = "sample",
        spatial_dims: Sequence[str] = ("y", "x"),
    ) -> None:
        """Fit on at most 20,000 patches with at least one known cell, spread evenly over the history.

        Args:
            history: Training part in data units.
            num_components: Numbers kept per patch; at most its cells.
            patch: Cells of a patch along each axis; the sizes must be multiples of it.
            sample_dim: Dimension of samples.
            spatial_dims: The two dimensions that are cut.
        """
        self.patch, self.sample_dim, self.spatial_dims = patch, sample_dim, tuple(spatial_dims)
        patches = self._cut(history, "history")
        known = np.zeros(patches.sizes[sample_dim], dtype=bool)
        for values in patches.data_vars.values():
            known |= np.isfinite(values.values).any(axis=(1, 2))
        there = np.flatnonzero(known)
        chosen = there[np.unique(np.linspace(0, len(there) - 1, min(_MOST_PATCHES, len(there))).round().astype(int))]
        self._pca = PCAReconstruction(patches.isel({sample_dim: chosen}), num_components, sample_dim=sample_dim)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted` from the known cells of the same patch of `given`."""
        patches = self._cut(given[list(wanted.data_vars)], "given")
        answers = self._pca.predict(patches, patches.map(np.isfinite))
        rows, columns = (wanted.sizes[dim] // self.patch for dim in self.spatial_dims)
        made = {}
        for name, asked in wanted.data_vars.items():
            blocks = answers[name].values.reshape(-1, rows, columns, self.patch, self.patch)
            field = blocks.transpose(0, 1, 3, 2, 4).reshape(-1, rows * self.patch, columns * self.patch)
            dims = (self.sample_dim, *self.spatial_dims)
            made[name] = xr.DataArray(field, dims=dims).transpose(*asked.dims).variable
        return xr.Dataset(made, coords=wanted.coords)

    def _cut(self, dataset: xr.Dataset, what: str) -> xr.Dataset:
        """Every patch as a sample of [patch, patch] cells."""
        dims = (self.sample_dim, *self.spatial_dims)
        made = {}
        for name in map(str, dataset.data_vars):
            values = require_dims(dataset, name, dims, what).transpose(*dims).values
            count, height, width = values.shape
            if height % self.patch or width % self.patch:
                raise DataError(f"{what}: {name!r} has {height}x{width} cells, no multiple of patches of {self.patch}")
            shape = (count, height // self.patch, self.patch, width // self.patch, self.patch)
            blocks = values.reshape(shape).transpose(0, 1, 3, 2, 4).reshape(-1, self.patch, self.patch)
            made[name] = (dims, blocks)
        return xr.Dataset(made)
