"""rasterize: files of trades to frames."""

from collections.abc import Callable, Mapping
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from gridloom.core.config import from_dict, load_yaml
from gridloom.grid.events.calendar import Calendar
from gridloom.grid.events.folder import FileStatus, FolderResult, rasterize_folder
from gridloom.grid.events.trades_config import TradesConfig

__all__ = ["rasterize"]


def rasterize(  # noqa: PLR0913 - the command line's flags
    source: Path | str,
    output: Path | str,
    *,
    config: TradesConfig | Mapping[str, Any] | Path | str | None = None,
    calendar: str | Calendar | None = None,
    reference: Path | str | None = None,
    workers: int = 1,
    sparse: bool = False,
    replace: bool = False,
    on_file: Callable[[FileStatus, int], None] | None = None,
) -> FolderResult:
    """Bin trades into heatmaps by minute, side, volume and price, and save them.

    For events of another kind (trips, flights, quakes) in a table see `gridloom.grid.events.raster.rasterize`.

    Args:
        source: CSV or Parquet file, or a folder of them.
        output: `.zarr` or `.nc`.
        config: `TradesConfig`, its settings as a mapping, or a YAML file of them; the A-share defaults if not given.
        calendar: Preset, file or calendar, over that of `config`.
        reference: Table of reference prices (CSV with code, date, close), over that of `config`.
        workers: Processes.
        sparse: Leave zeros out of the output.
        replace: Overwrite an existing output.
        on_file: Called with each file's status as it is finished, and the number of all files.

    Returns:
        The frames, the status of every file, and what became of every row.

    Raises:
        DataError: Nothing to read, an output that exists, or not a single file that could be used.
        ConfigError: Settings that make no sense.
    """
    if isinstance(config, Path | str):
        config = from_dict(TradesConfig, load_yaml(config), where=str(config))
    elif isinstance(config, Mapping):
        config = from_dict(TradesConfig, config)
    settings = config or TradesConfig()
    if calendar is not None:
        settings = changed(settings, calendar=calendar)
    if reference is not None:
        settings = changed(settings, references=Path(reference))
    return rasterize_folder(source, output, settings, workers=workers, sparse=sparse, replace=replace, on_file=on_file)
