import numpy as np
import pytest
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines import PatchPCA, PCAReconstruction


def fields(count: int = 6, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(count, 4, 6)).repeat(4, 1).repeat(4, 2) + 0.1 * rng.normal(size=(count, 16, 24))
    return xr.Dataset({"a": (("sample", "y", "x"), smooth), "b": (("sample", "y", "x"), 10 - 2 * smooth)})


def test_each_patch_is_reconstructed_as_pca_of_the_patches_does_it() -> None:
    history, given = fields(), fields(2, seed=1)
    answer = PatchPCA(history, 3, patch=8).predict(given, given.map(np.isfinite))

    def patches(dataset: xr.Dataset) -> xr.Dataset:
        parts = [
            dataset.isel(sample=sample, y=slice(y, y + 8), x=slice(x, x + 8))
            for sample in range(dataset.sizes["sample"])
            for y in (0, 8)
            for x in (0, 8, 16)
        ]
        return xr.concat(parts, "sample")

    slow = PCAReconstruction(patches(history), 3)
    expected = slow.predict(patches(given), patches(given).map(np.isfinite))
    assert np.allclose(patches(answer)["a"], expected["a"]) and np.allclose(patches(answer)["b"], expected["b"])


def test_all_components_give_the_field_back_and_a_hole_is_filled_from_its_own_patch() -> None:
    history, given = fields(40), fields(2, seed=1)
    whole = PatchPCA(history[["a"]], 16, patch=4)
    assert np.allclose(whole.predict(given[["a"]], given[["a"]].map(np.isfinite))["a"], given["a"], atol=1e-6)
    holes = given[["a"]].copy(deep=True)
    holes["a"][0, :2, :4] = np.nan
    holes["a"][1, 4:8, 4:8] = np.nan
    few = PatchPCA(history[["a"]], 2, patch=4)
    answer = few.predict(holes, holes.map(np.ones_like).astype(bool))["a"]
    assert np.isfinite(answer).all()
    assert abs(float(answer[0, :2, :4].mean() - given["a"][0, :2, :4].mean())) < 0.3, "the patch is nearly constant"


def test_a_size_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(DataError, match=r"history: 'a' has 16x24 cells, no multiple of patches of 5"):
        PatchPCA(fields(), 2, patch=5)
