"""data: the samples that come along."""

from pathlib import Path

from gridloom.grid.samples import SAMPLES, open_sample
from gridloom.grid.write import save_grid

__all__ = ["list_samples", "prepare_sample"]


def list_samples() -> list[dict[str, str]]:
    """Describe every sample: name, summary, origin, license, and the extra that it needs."""
    return [
        {
            "name": sample.name,
            "summary": sample.summary,
            "origin": sample.origin,
            "license": sample.license,
            "needs": sample.needs,
        }
        for sample in SAMPLES.values()
    ]


def prepare_sample(name: str, output: Path | str, *, replace: bool = False) -> Path:
    """Write a sample as netCDF or zarr.

    Raises:
        UnknownNameError: No such sample.
        DataError: The output exists.
    """
    output = Path(output)
    save_grid(open_sample(name), output, replace=replace)
    return output
