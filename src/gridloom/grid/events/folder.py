"""A file or a folder of trades to one frames dataset, several files at a time; a run that was stopped goes on."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import xarray as xr

from gridloom.core.config import to_dict
from gridloom.core.errors import ConfigError, DataError
from gridloom.grid.events.accounting import Accounting
from gridloom.grid.events.assemble import Assembler
from gridloom.grid.events.calendar import Calendar, open_calendar
from gridloom.grid.events.limits import Limit
from gridloom.grid.events.parts import Part, Parts
from gridloom.grid.events.read import SUFFIXES, require_pyarrow
from gridloom.grid.events.tables import read_halts, read_references
from gridloom.grid.events.trades import Prices, StockDay, rasterize_trades
from gridloom.grid.events.trades_config import TradesConfig, code_of, date_of
from gridloom.grid.write import save_grid

__all__ = ["FileStatus", "FolderResult", "find_files", "rasterize_folder"]


@dataclass(frozen=True, kw_only=True)
class FileStatus:
    """What became of a file."""

    file: str
    """Path below the input."""
    status: Literal["ok", "skipped", "error"]
    reason: str
    """Why it was skipped, or what is wrong with it."""
    kept: bool
    """Finished by an earlier run."""
    accounting: Accounting

    def to_json(self) -> dict[str, Any]:
        """Return one line of the status file."""
        return {
            "file": self.file,
            "status": self.status,
            "reason": self.reason,
            "kept": self.kept,
            "accounting": self.accounting.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """Frames, and what became of every file."""

    frames: xr.Dataset
    files: tuple[FileStatus, ...]
    """In the order of their names."""
    accounting: Accounting
    """Of the files that are in the frames."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """All that a worker needs for one file."""

    name: str
    path: Path
    config: TradesConfig
    calendar: Calendar
    limits: Sequence[Limit] | None
    prices: Prices
    parts: Parts


def find_files(source: Path) -> dict[str, Path]:
    """Return the files of a folder and those below, or the one file, by their path below it.

    Raises:
        DataError: Nothing there, or no files that can be read.
    """
    if source.is_file():
        if not source.name.endswith(SUFFIXES):
            raise DataError(f"{source}: expected a file that ends in one of {' '.join(SUFFIXES)}")
        return {source.name: source}
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    files = {
        path.relative_to(source).as_posix(): path
        for path in sorted(source.rglob("*"))
        if path.name.endswith(SUFFIXES)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    }
    if not files:
        raise DataError(f"{source}: no files below it that end in one of {' '.join(SUFFIXES)}")
    return files


def rasterize_folder(
    source: Path | str,
    output: Path | str,
    config: TradesConfig | None = None,
    *,
    workers: int = 1,
    sparse: bool = False,
    replace: bool = False,
    on_file: Callable[[FileStatus, int], None] | None = None,
) -> FolderResult:
    """Bin the trades of all files and save the frames.

    What is finished of each file is kept in `OUTPUT.parts` until the frames are saved; the same call again takes it
    from there unless the file or the settings changed. `OUTPUT.status.jsonl` gets one line for each file as it is
    finished.

    Args:
        source: CSV or Parquet file, or a folder of them; dates and codes are taken from names where no column has them.
        output: `.zarr` or `.nc`.
        config: How.
        workers: Processes.
        sparse: Leave zeros out of the output; `open_frames` reads either.
        replace: Overwrite an existing output.
        on_file: Called with each file's status as it is finished, and the number of all files.

    Raises:
        DataError: Nothing to read, an output that exists, or not a single file that could be used.
        ConfigError: Settings that make no sense.
    """
    require_pyarrow()
    source, output, config = Path(source), Path(output), config or TradesConfig()
    if output.suffix not in (".zarr", ".nc"):
        raise DataError(f"{output}: expected a name that ends in .nc or .zarr, got {output.suffix or 'no ending'!r}")
    if output.exists() and not replace:
        raise DataError(f"{output} exists already; choose another --output, or pass --replace")
    if workers < 1:
        raise ConfigError(f"workers: expected 1 or more, got {workers}")
    calendar = open_calendar(config.calendar)
    limits = config.open_limits(calendar)
    prices = read_references(config.references) if config.references is not None else {}
    halts = read_halts(config.halts) if config.halts is not None else ()
    files = find_files(source)
    for table in (config.references, config.halts):
        files = {name: path for name, path in files.items() if table is None or path.resolve() != table.resolve()}
    parts = Parts(output.with_name(output.name + ".parts"), _digest(config, calendar, limits))
    jobs = [
        _Job(
            name=name,
            path=path,
            config=config,
            calendar=calendar,
            limits=limits,
            prices=_prices_for(path, config, prices),
            parts=parts,
        )
        for name, path in files.items()
    ]
    statuses = {}
    log = output.with_name(output.name + ".status.jsonl")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as lines:
        for status in _run(jobs, workers):
            statuses[status.file] = status
            lines.write(json.dumps(status.to_json(), ensure_ascii=False) + "\n")
            lines.flush()
            if on_file is not None:
                on_file(status, len(jobs))
    finished = [part for job in jobs if (part := _finished(job, statuses[job.name])) is not None]
    if not finished:
        first = next(iter(statuses.values()))
        raise DataError(
            f"{source}: none of {len(files)} files could be used; {first.file}: {first.reason} (all in {log.name})"
        )
    names = [(str(day["code"]), int(day["day"])) for part in finished for day in part.days]
    assembler = Assembler(names, config, calendar, sparse=sparse, halts=halts)
    for pieces in _stock_days(finished):
        assembler.add(*pieces)
    accounting = sum((part.accounting for part in finished), Accounting())
    frames = assembler.finish(accounting, squeeze=source.is_file())
    save_grid(frames, output, replace=replace)
    rmtree(parts.folder, ignore_errors=True)
    return FolderResult(
        frames=frames,
        files=tuple(statuses[name] for name in files),
        accounting=Accounting.from_json(json.loads(frames.attrs["accounting"])),
    )


def _digest(config: TradesConfig, calendar: Calendar, limits: Sequence[Limit] | None) -> str:
    """Digest of all that the counts of a file depend on, besides the file."""
    record = {"config": to_dict(config), "calendar": to_dict(calendar), "limits": to_dict(limits)}
    tables = [table.read_bytes() for table in (config.references,) if table is not None]
    return sha256(json.dumps(record, sort_keys=True).encode() + b"\0".join(tables)).hexdigest()


def _prices_for(path: Path, config: TradesConfig, prices: Prices) -> Mapping[tuple[str, int], float]:
    """Those reference prices that a file can need, so that workers are not sent all of them."""
    if config.code_column is not None:
        return prices
    code = code_of(path)
    day = date_of(Path(config.date)) if config.date is not None else date_of(path)
    if day is not None:
        # a session may be named by the date before or after
        near = ((code, other) for other in range(day - 7, day + 8))
        found = {name: prices[name] for name in near if name in prices}
        if found:
            return found
    return {name: price for name, price in prices.items() if name[0] == code}


def _run(jobs: list[_Job], workers: int) -> Iterator[FileStatus]:
    if workers == 1 or len(jobs) == 1:
        for job in jobs:
            yield _work(job)
        return
    # forked processes would inherit the threads of whoever calls
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_work, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                "a worker process was killed, perhaps for want of memory; run the same again, with fewer --workers: "
                "what is finished is kept"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _work(job: _Job) -> FileStatus:
    kept = job.parts.find(job.name, job.path)
    if kept is not None:
        return FileStatus(file=job.name, status="ok", reason="", kept=True, accounting=kept.accounting)
    result = rasterize_trades(job.path, job.config, job.prices, calendar=job.calendar, limits=job.limits)
    if result.status == "ok":
        job.parts.write(job.name, job.path, result)
    return FileStatus(
        file=job.name, status=result.status, reason=result.reason, kept=False, accounting=result.accounting
    )


def _finished(job: _Job, status: FileStatus) -> Part | None:
    if status.status != "ok":
        return None
    part = job.parts.find(job.name, job.path)
    if part is None:
        raise DataError(f"{job.path}: changed while it was read; run the same again")
    return part


def _stock_days(parts: Sequence[Part]) -> Iterator[Sequence[StockDay]]:
    """Yield the pieces of each stock-day; those of which there is one only as they come, the others at the end."""
    seen: dict[tuple[str, int], int] = {}
    for part in parts:
        for day in part.days:
            name = (str(day["code"]), int(day["day"]))
            seen[name] = seen.get(name, 0) + 1
    pieces: dict[tuple[str, int], list[StockDay]] = {}
    for part in parts:
        for stock_day in Parts.stock_days(part):
            name = (stock_day.code, stock_day.day)
            if seen[name] == 1:
                yield (stock_day,)
            else:
                pieces.setdefault(name, []).append(stock_day)
    yield from pieces.values()
