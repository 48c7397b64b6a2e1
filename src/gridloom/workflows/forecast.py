"""forecast: the frames after a record."""

from pathlib import Path

import numpy as np
import xarray as xr
from torch import Tensor

from gridloom.core.errors import DataError
from gridloom.encoders.artifact import load_model
from gridloom.grid.events.store import to_dense
from gridloom.grid.read import open_grid
from gridloom.grid.write import save_grid
from gridloom.systems.heatmap.fast import Precision
from gridloom.systems.heatmap.forecast import QUANTILES
from gridloom.systems.heatmap.forecast import forecast as forecast_frames
from gridloom.systems.heatmap.predict import HeatmapForecaster
from gridloom.systems.heatmap.rollout import Feedback
from gridloom.workflows.fill import forecast as fill_ahead

__all__ = ["forecast"]


def forecast(  # noqa: PLR0913 - each says one thing about a forecast
    data: str | Path | xr.Dataset | xr.DataArray | np.ndarray | Tensor,
    model: Path | str,
    horizon: int,
    *,
    slot_ids: np.ndarray | Tensor | None = None,
    num_samples: int = 1,
    feedback: Feedback = "frames",
    quantiles: tuple[float, ...] = QUANTILES,
    seed: int = 0,
    precision: Precision = "fp32",
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Forecast what comes after a record.

    Args:
        data: For a heatmap model frames: file, sample, dataset or array. For a crossmae model fields.
        model: Run folder or artifact of a heatmap model, or of a crossmae model that has learnt whole times.
        horizon: Slots (or times) ahead.
        slot_ids: Slots of an array's frames, and if there are more, of those ahead.
        num_samples: Sample paths beside what is expected; 1 draws none.
        feedback: What the next step of a heatmap model is told: `frames` or `latents`.
        quantiles: Quantiles of the paths' totals.
        seed: Of the sample paths.
        precision: `bf16` is faster where the processor computes in it; see `HeatmapForecaster`.
        output: `.nc` or `.zarr`; None writes nothing.
        replace: Overwrite an existing output.

    Returns:
        For heatmaps as `systems.heatmap.forecast.forecast` says; for fields as `workflows.fill.forecast`.

    Raises:
        DataError: A model that does not forecast, data that it was not made for, or an output that exists.
    """
    if output is not None and Path(output).exists() and not replace:
        raise DataError(f"{output} exists already; choose another --output, or pass --replace")
    artifact, trained = load_model(model)
    if artifact.system.name == "crossmae":
        if num_samples > 1 or slot_ids is not None or isinstance(data, np.ndarray | Tensor):
            raise DataError("a crossmae model forecasts fields with a standard deviation: it has no slots and no paths")
        return fill_ahead(data, model, horizon, output=output, replace=replace)
    if artifact.system.name != "heatmap":
        raise DataError(
            f"{artifact.path}: forecast needs a model of system heatmap or crossmae, this one is {artifact.system.name}"
        )
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or "frames")
    history = data if isinstance(data, np.ndarray | Tensor) else to_dense(open_grid(data))
    found = forecast_frames(
        HeatmapForecaster(trained, precision=precision),
        history,
        slot_ids,
        horizon,
        num_samples,
        feedback=feedback,
        quantiles=quantiles,
        seed=seed,
    )
    found = found.assign_attrs(forecast_by=f"heatmap, {artifact.path.parent.name}/{artifact.path.name}")
    if output is not None:
        save_grid(found, output, replace=replace)
    return found
