"""encode: a dataset to embeddings with coordinates."""

from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from gridloom.core.errors import DataError
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.reduced import Precision
from gridloom.grid.write import save_grid

__all__ = ["encode"]


def encode(
    model: Path | str,
    data: str | Path | xr.Dataset,
    *,
    output: Path | str | None = None,
    stride: Mapping[str, int] | tuple[int, int] | None = None,
    window: tuple[int, int] | None = None,
    batch_size: int = 32,
    precision: Precision = "fp32",
    replace: bool = False,
) -> xr.DataArray:
    """Encode every window of a dataset.

    Args:
        model: Run folder, artifact or file of weights.
        data: Path, sample name or dataset, in data units.
        output: `.zarr` or `.nc` for the embeddings; None writes nothing.
        stride: Step between windows by dimension, or down and across; default is the window's size.
        window: Height and width of a window in cells; default is what the encoder was trained on.
        batch_size: Windows at a time.
        precision: `bf16` is faster where the CPU or GPU has it; see `SemanticEncoder.encode_batch`.
        replace: Overwrite an existing output.

    Returns:
        Embeddings, see `SemanticEncoder.encode_dataset`.
    """
    if output is not None and Path(output).exists() and not replace:
        raise DataError(f"{output} exists already; choose another --output, or pass --replace")
    encoder = SemanticEncoder.from_pretrained(model)
    embeddings = encoder.encode_dataset(data, batch_size=batch_size, stride=stride, window=window, precision=precision)
    if output is not None:
        save_grid(embeddings.to_dataset(name="embedding"), Path(output), replace=replace)
    return embeddings
