"""fill: every gap of a record filled, with an uncertainty and a note of where each value comes from."""

import logging
from pathlib import Path

import numpy as np
import xarray as xr

import gridloom
from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.encoders.artifact import Artifact, load_model
from gridloom.grid.axes import numeric_variables, time_dim
from gridloom.grid.read import open_grid
from gridloom.grid.write import save_grid
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.fill import STD, Filler

__all__ = ["HELD_OUT", "SOURCE", "fill", "forecast", "impute"]

SOURCE = "_source"
"""A variable of this ending says where the values of the one without come from."""

HELD_OUT = "held-out cells of the training record"
"""Part of the attributes that say how far the intervals can be trusted."""

_OBSERVED, _FILLED, _NEVER = 0, 1, 2
_MEANINGS = "observed filled never_had_data"
_LOGGER = logging.getLogger(__name__)
_MONTHS = {1: (28, 31), 3: (89, 92), 6: (181, 184), 12: (365, 366)}  # calendar steps, by their length in days


def fill(
    data: str | Path | xr.Dataset | xr.DataArray,
    model: Path | str,
    *,
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Fill every missing cell of the variables that a model knows.

    A cell that was never observed at any time (land) stays missing. Observed cells are returned to the bit.

    Args:
        data: File, folder, sample or dataset with the model's variables; any size, any length.
        model: Run folder or artifact of a crossmae model.
        output: `.nc` or `.zarr`; None writes nothing.
        replace: Overwrite an existing output.

    Returns:
        The dataset with its gaps filled, and for each filled variable `NAME_std`, the standard deviation of each filled
        cell (0 where observed, NaN where there is no value), and `NAME_source`: 0 observed, 1 filled, 2 never had data.
        `attrs` say by which model, and which share of held-out cells its intervals covered.

    Raises:
        DataError: Not a crossmae model, variables that are not there, or an output that exists.
    """
    _check_free(output, replace)
    artifact, trained = _load(model, "fill")
    dataset, names = _named(_open(data), trained.config)
    filled = _fill(dataset, trained, _variables(trained.config)).assign_attrs(_provenance(artifact))
    filled = filled.rename({name: own for name, own in names.items() if name in filled})
    if output is not None:
        save_grid(filled, output, replace=replace)
    return filled


def impute(
    data: str | Path | xr.Dataset | xr.DataArray,
    model: Path | str,
    *,
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Fill the gaps of series of places, with everything else that the model knows in sight; see `fill`.

    Raises:
        DataError: The model knows no series.
    """
    _check_free(output, replace)
    _, trained = _load(model, "impute")
    if not any(modality.kind == "vector" for modality in trained.config.modalities.values()):
        raise DataError(f"{model}: this model knows fields alone, no series of places; use fill")
    whole = fill(data, model)
    fields = _variables(trained.config, kind="image")
    untouched = _open(data)
    kept = whole.drop_vars([f"{name}{ending}" for name in fields for ending in ("", STD, SOURCE)])
    kept = kept.assign({name: untouched[name] for name in fields})
    if output is not None:
        save_grid(kept, output, replace=replace)
    return kept


def forecast(
    data: str | Path | xr.Dataset | xr.DataArray,
    model: Path | str,
    steps: int,
    *,
    output: Path | str | None = None,
    replace: bool = False,
) -> xr.Dataset:
    """Fill times that are still to come: the frames after the last one, from those before.

    Args:
        data: As for `fill`.
        model: Run folder or artifact. It has learnt this only if whole times were hidden while it was trained
            (`masking.strategies time`, `data.gaps frames`).
        steps: Frames to come; what lies further ahead than a window reaches is the climatology at best.
        output: `.nc` or `.zarr`; None writes nothing.
        replace: Overwrite an existing output.

    Returns:
        The frames to come alone, with `NAME_std`.
    """
    _check_free(output, replace)
    _, trained = _load(model, "forecast")
    if steps < 1:
        raise DataError(f"forecast: expected 1 step or more, got {steps}")
    if steps >= trained.config.data.window[0]:
        _LOGGER.warning(
            "%d steps ahead, but the model's window has %d: the last ones see no observation",
            steps,
            trained.config.data.window[0],
        )
    dataset, names = _named(_open(data), trained.config)
    time = _time(dataset)
    times = _times_to_come(dataset, time, steps)
    longer = dataset.reindex({time: np.concatenate([dataset[time].values, times])})
    # A step without any observation of a place that was observed before is a gap like others.
    filled = _fill(longer, trained, _variables(trained.config)).isel({time: slice(-steps, None)})
    known = _variables(trained.config)
    ahead = filled[[f"{name}{ending}" for name in known for ending in ("", STD) if f"{name}{ending}" in filled]]
    ahead = ahead.rename({name: own for name, own in names.items() if name in ahead})
    if output is not None:
        save_grid(ahead, output, replace=replace)
    return ahead


def _check_free(output: Path | str | None, replace: bool) -> None:
    """Before the work, not after it."""
    if output is not None and Path(output).exists() and not replace:
        raise DataError(f"{output} exists already; choose another --output, or pass --replace")


def _load(model: Path | str, verb: str) -> tuple[Artifact, Trained[CrossMAEConfig]]:
    artifact, trained = load_model(model)
    if artifact.system.name != "crossmae":
        raise DataError(f"{artifact.path}: {verb} needs a model of system crossmae, this one is {artifact.system.name}")
    return artifact, trained


def _variables(config: CrossMAEConfig, kind: str = "") -> list[str]:
    """Variables that are filled, of one kind of modality or of all."""
    return [
        variable
        for name, modality in config.modalities.items()
        if kind in ("", modality.kind)
        for variable in modality.variables or (name,)
    ]


def _open(data: str | Path | xr.Dataset | xr.DataArray) -> xr.Dataset:
    if isinstance(data, xr.DataArray):
        return data.to_dataset(name=data.name or "variable")
    if not isinstance(data, str | Path | xr.Dataset):
        raise DataError(f"expected a path, the name of a sample, or an xarray dataset, got {type(data).__name__}")
    return open_grid(data)


def _named(dataset: xr.Dataset, config: CrossMAEConfig) -> tuple[xr.Dataset, dict[str, str]]:
    """Where one variable was trained on and one of its kind is there, it is taken whatever its name.

    Returns:
        The dataset with the model's names, and the file's own names by those.
    """
    known = _variables(config)
    numeric = [name for name in numeric_variables(dataset) if dataset[name].ndim > 1]
    if len(known) != 1 or len(numeric) != 1 or known == numeric:
        return dataset, {}
    (modality,) = config.modalities.values()
    if dataset[numeric[0]].ndim != (3 if modality.kind == "image" else 2):
        return dataset, {}
    _LOGGER.info("%s is taken for %s", numeric[0], known[0])
    own = {f"{known[0]}{ending}": f"{numeric[0]}{ending}" for ending in ("", STD, SOURCE)}
    return dataset.rename({numeric[0]: known[0]}), own


def _time(dataset: xr.Dataset) -> str:
    time = time_dim(dataset)
    if time is None:
        raise DataError(f"expected a dimension of time, got {', '.join(map(str, dataset.dims))}")
    return time


def _fill(dataset: xr.Dataset, trained: Trained[CrossMAEConfig], variables: list[str]) -> xr.Dataset:
    time = _time(dataset)
    for name in variables:
        if name not in dataset:
            raise DataError(
                f"the model fills {', '.join(variables)}; the data have no {name!r} (they have "
                f"{', '.join(map(str, dataset.data_vars)) or 'nothing'}); rename, or add it full of NaN to go without"
            )
    numeric_variables(dataset, variables)
    observed = {name: dataset[name].copy(data=np.isfinite(dataset[name].values)) for name in variables}
    gaps_of = {name: (~seen & seen.any(time)).transpose(*dataset[name].dims) for name, seen in observed.items()}
    wanted = xr.Dataset(gaps_of)
    answers = Filler(trained, show=True).predict(dataset, wanted)
    found = {}
    for name in variables:
        original, dims = dataset[name], dataset[name].dims
        gaps, seen = wanted[name].values, observed[name].values
        if not seen.any():
            _LOGGER.warning("%s: never observed in these data, nothing to fill it from", name)
        values = original.values.copy()
        values[gaps] = answers[name].values[gaps].astype(values.dtype)
        found[name] = original.copy(data=values)
        if f"{name}{STD}" in answers:
            deviation = np.where(seen, np.float32(0.0), answers[f"{name}{STD}"].values.astype(np.float32))
            found[f"{name}{STD}"] = xr.DataArray(deviation, dims=dims, attrs=answers[f"{name}{STD}"].attrs)
        source = np.where(seen, _OBSERVED, np.where(gaps, _FILLED, _NEVER)).astype(np.int8)
        flags = np.array([_OBSERVED, _FILLED, _NEVER], dtype=np.int8)
        told = {"long_name": f"source of {name}", "flag_values": flags, "flag_meanings": _MEANINGS}
        found[f"{name}{SOURCE}"] = xr.DataArray(source, dims=dims, attrs=told)
    return dataset.assign(found)


def _provenance(artifact: Artifact) -> dict[str, str | float]:
    """Who filled, and how far its intervals can be trusted."""
    told: dict[str, str | float] = {
        "filled_by": f"gridloom {gridloom.__version__}, crossmae",
        "filled_by_model": artifact.path.parent.name if artifact.path.name == "artifact" else artifact.path.name,
    }
    scores = artifact.training.get("scores", ())
    for score in scores if isinstance(scores, list | tuple) else ():
        if score.get("method") == "crossmae" and str(score.get("metric")) in ("within 1 sigma", "within 2 sigma"):
            told[f"{score['group']}, {HELD_OUT} {score['metric']}"] = round(float(score["value"]), 3)
    return told


def _times_to_come(dataset: xr.Dataset, time: str, steps: int) -> np.ndarray:
    """Go on with the step that the axis has; calendar months and years stay such."""
    values = dataset[time].values if time in dataset.coords else np.arange(dataset.sizes[time])
    if len(values) < 2 or values.dtype.kind not in "Miuf":
        raise DataError(f"time axis {time!r}: expected two times or more, as dates or numbers, got {values.dtype}")
    ahead = np.arange(1, steps + 1)
    if values.dtype.kind != "M":
        return np.asarray(values[-1] + ahead * np.median(np.diff(values)).astype(values.dtype))
    days = float(np.median(np.diff(values) / np.timedelta64(1, "D")))
    for months, (low, high) in _MONTHS.items():
        if low - 0.5 <= days <= high + 0.5:
            last = values[-1].astype("datetime64[M]")
            within = values[-1] - last.astype(values.dtype)
            return np.asarray((last + ahead * months).astype(values.dtype) + within)
    return np.asarray(values[-1] + ahead * np.median(np.diff(values)))
