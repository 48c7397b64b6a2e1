"""Encoding whole datasets: every window, with its coordinates."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import FieldSpec, Source
from gridloom.core.errors import DataError
from gridloom.encoders.arrays import scale_by_own_range
from gridloom.encoders.fingerprint import fingerprint
from gridloom.encoders.places import CELL
from gridloom.encoders.reduced import Precision
from gridloom.grid.axes import spatial_dims
from gridloom.grid.normalize import Normalizer
from gridloom.grid.pad import pad_to_windows
from gridloom.grid.prepare import open_fields
from gridloom.grid.read import open_grid
from gridloom.grid.source import GridSource
from gridloom.grid.windows import Windows, cut_windows

if TYPE_CHECKING:
    from gridloom.encoders.encoder import SemanticEncoder

__all__ = ["encode_dataset"]


def encode_dataset(
    encoder: "SemanticEncoder",
    data: xr.Dataset | xr.DataArray | str | Path,
    *,
    batch_size: int = 32,
    stride: Mapping[str, int] | tuple[int, int] | None = None,
    window: tuple[int, int] | None = None,
    precision: Precision = "fp32",
) -> xr.DataArray:
    """Encode every window of a dataset; see `SemanticEncoder.encode_dataset`."""
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or "variable")
    cut = encoder._system.encode_source
    if cut is not None:
        if window is not None:
            raise DataError("this encoder takes windows of the size it was trained on; leave window out")
        dataset, windows, source = cut(encoder._config, encoder._normalizer_record, open_grid(data), stride)
    else:
        dataset, windows, source = _one_field_source(encoder, data, stride, window)
    embeddings = np.empty((len(source), encoder.latent_dim), dtype=np.float32)
    missing = np.empty(len(source), dtype=np.float32)
    for part in _parts(len(source), batch_size):
        batch = source.collate(list(range(part.start, part.stop)), 0)
        if encoder.normalizer is None:
            ranged = {name: _by_own_range(field) for name, field in batch.fields.items()}
            batch = replace(batch, fields=ranged)
        embeddings[part] = encoder._encode_quietly(batch, precision).float().cpu().numpy()
        missing[part] = _missing_share(batch, encoder)
    embeddings[missing == 1.0] = np.nan
    return _with_coordinates(dataset, windows, embeddings, missing, encoder)


def _one_field_source(
    encoder: "SemanticEncoder",
    data: xr.Dataset | str | Path,
    stride: Mapping[str, int] | tuple[int, int] | None,
    window: tuple[int, int] | None,
) -> tuple[xr.Dataset, Windows, Source]:
    """Windows of the one field that most encoders take."""
    name, spec = encoder._one_field("a dataset")
    dataset = _open(data, spec)
    variables = spec.variables or tuple(str(variable) for variable in dataset.data_vars)
    if len(variables) != encoder.input_channels:
        raise DataError(f"expected {encoder.input_channels} variables for the channels, got {', '.join(variables)}")
    dims = spatial_dims(dataset, variables)
    sizes = dict(zip(dims, _window(window, spec), strict=True))
    if isinstance(stride, tuple):
        stride = dict(zip(dims, stride, strict=True))
    dataset = pad_to_windows(dataset, sizes)
    windows = cut_windows(dataset, sizes=sizes, strides=stride, cover=True)
    source = GridSource(
        dataset,
        variables=variables,
        windows=windows,
        normalizer=encoder.normalizer or Normalizer(dict.fromkeys(variables, ())),
        seed=0,
        field=name,
        keep_dims=dims,
    )
    return dataset, windows, source


def _missing_share(batch: Batch, encoder: "SemanticEncoder") -> np.ndarray:
    """Share of the cells of the trained variables that are missing, for each window."""
    fields = [batch.fields[name] for name, spec in encoder.encoder.inputs.fields.items() if spec.variables]
    parts = [field.valid.expand_as(field.values).flatten(1) for field in fields or batch.fields.values()]
    return 1.0 - torch.cat(parts, dim=1).float().mean(1).numpy()


def _open(data: xr.Dataset | str | Path, spec: FieldSpec) -> xr.Dataset:
    """Open the trained variables. Where one was trained on and one is there, it is taken whatever its name."""
    opened = open_grid(data)
    if len(spec.variables) == 1 and spec.variables[0] not in opened.data_vars:
        whole = open_fields(opened)
        if len(whole.data_vars) == 1:
            return whole.rename(dict(zip(whole.data_vars, spec.variables, strict=True)))
    return open_fields(opened, spec.variables)


def _window(asked: tuple[int, int] | None, spec: FieldSpec) -> tuple[int, ...]:
    """The window's height and width: as asked, or as the encoder was trained."""
    if asked is None:
        return spec.size[-2:]
    if any(size < 1 or size % spec.multiple_of for size in asked):
        raise DataError(f"window must be multiples of {spec.multiple_of}, got {asked[0]}x{asked[1]}")
    return asked


def _by_own_range(field: Field) -> Field:
    """Where the weights came without statistics: each window by its own range, as `encode_numpy` does it."""
    values = np.where(field.valid.numpy(), field.values.numpy(), np.float32(np.nan))
    return Field.of(torch.from_numpy(scale_by_own_range(values)))


def _parts(count: int, size: int) -> Iterator[slice]:
    from rich.console import Console
    from rich.progress import track

    if size < 1:
        raise DataError(f"batch_size must be at least 1, got {size}")
    console = Console(stderr=True)
    starts = range(0, count, size)
    for start in track(starts, "encoding", console=console, disable=not console.is_terminal or len(starts) < 10):
        yield slice(start, min(start + size, count))


def _with_coordinates(
    dataset: xr.Dataset, windows: Windows, embeddings: np.ndarray, missing: np.ndarray, encoder: "SemanticEncoder"
) -> xr.DataArray:
    shape = tuple(len(windows.starts[dim]) for dim in windows.dims)
    grid = np.arange(len(windows)).reshape(shape)
    centers = windows.centers(dataset, np.arange(len(windows)))
    coordinates: dict[str, tuple] = {"missing_share": (windows.dims, missing.reshape(shape))}
    for axis, dim in enumerate(windows.dims):
        along = np.take(np.moveaxis(grid, axis, 0).reshape(shape[axis], -1), 0, axis=1)
        attributes = dict(dataset[dim].attrs) if dim in dataset.coords else {}
        coordinates[dim] = (dim, centers[dim][along], attributes)
        coordinates[f"{CELL}{dim}"] = (dim, windows.starts[dim], {"long_name": "first cell of the window"})
    sizes = {f"window_{dim}": windows.sizes[dim] for dim in windows.dims}
    info = encoder.get_model_info()
    return xr.DataArray(
        embeddings.reshape(*shape, -1),
        dims=(*windows.dims, "feature"),
        coords=coordinates,
        name="embedding",
        attrs={
            "long_name": f"embedding of {', '.join(info['variables']) or 'a window'}",
            "system": info["system"],
            "encoder_sha256": fingerprint(encoder.encoder, encoder._normalizer_record),
            **sizes,
        },
    )
