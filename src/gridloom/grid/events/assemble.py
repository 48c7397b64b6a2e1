"""Stock-days to one frames dataset: series x time, dense or sparse."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from gridloom.core.errors import DataError
from gridloom.grid.events.accounting import Accounting
from gridloom.grid.events.axes import axis_record
from gridloom.grid.events.calendar import Calendar
from gridloom.grid.events.frames import frames_dataset
from gridloom.grid.events.locate import SlotTimes, slot_times
from gridloom.grid.events.store import sparse_variables
from gridloom.grid.events.tables import Halt
from gridloom.grid.events.trades import StockDay
from gridloom.grid.events.trades_config import TradesConfig

__all__ = ["Assembler"]

_LARGEST = 8 * 1024**3


class Assembler:
    """Takes stock-days one by one and lays them out. Which there will be has to be known from the start."""

    def __init__(
        self,
        names: Iterable[tuple[str, int]],
        config: TradesConfig,
        calendar: Calendar,
        *,
        sparse: bool = False,
        halts: Sequence[Halt] = (),
    ) -> None:
        """Lay out.

        Args:
            names: (code, days since 1970-01-01) of each stock-day that will come.
            config: How they were made.
            calendar: That of the configuration, opened.
            sparse: Leave zeros out.
            halts: Slots that did not happen.

        Raises:
            DataError: Too large to be dense.
        """
        names = set(names)
        self._config, self._calendar = config, calendar
        self._codes = sorted({code for code, _ in names})
        self._days = np.array(sorted({day for _, day in names}), dtype=np.int64)
        self._places = {code: place for place, code in enumerate(self._codes)}
        self._size = (config.volume_axis.size, config.price_axis.size)
        self._cells_per_day = calendar.num_slots * 2 * self._size[0] * self._size[1]
        self._kind = np.min_scalar_type(config.count_cap)
        self._dense: np.ndarray | None = None
        num_cells = len(self._codes) * len(self._days) * self._cells_per_day
        if not sparse:
            size = num_cells * self._kind.itemsize
            if size > _LARGEST:
                raise DataError(
                    f"{len(self._codes)} series x {len(self._days)} sessions are {size / 1024**3:.0f} GiB of counts, "
                    "nearly all of them zero; use --sparse, or fewer files at a time"
                )
            self._dense = np.zeros((len(self._codes), len(self._days), self._cells_per_day), dtype=self._kind)
        self._sparse: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}
        shape = (len(self._codes), len(self._days))
        self._reference = np.full(shape, np.nan)
        self._r_max = np.full(shape, np.nan)
        self._halts = halts
        self._saturated = self._lost = 0

    def add(self, *pieces: StockDay) -> None:
        """Put a stock-day in its place; several pieces of the same one are added up.

        Raises:
            DataError: Pieces about different reference prices.
        """
        first = pieces[0]
        place = self._places[first.code], int(np.searchsorted(self._days, first.day))
        if any(piece.reference != first.reference for piece in pieces):
            raise DataError(
                f"{first.code} on {np.datetime64(first.day, 'D')}: several files hold parts of it, with different "
                "reference prices; give a table of reference prices"
            )
        cells, sums = first.cells, first.counts
        if len(pieces) > 1:
            cells, inverse = np.unique(np.concatenate([piece.cells for piece in pieces]), return_inverse=True)
            weights = np.concatenate([piece.counts for piece in pieces])
            sums = np.bincount(inverse, weights, minlength=len(cells)).astype(np.int64)
        cap = self._config.count_cap
        over = sums[sums > cap]
        self._saturated += len(over)
        self._lost += int(over.sum()) - cap * len(over)
        counts = np.minimum(sums, cap).astype(self._kind)
        if self._dense is not None:
            self._dense[place][cells] = counts
        else:
            self._sparse[place] = cells.astype(np.int64), counts
        self._reference[place], self._r_max[place] = first.reference, first.r_max

    def finish(self, accounting: Accounting, *, squeeze: bool = False) -> xr.Dataset:
        """Return the frames dataset.

        Args:
            accounting: Of all files; how many cells are saturated is counted here.
            squeeze: Leave the dimension `series` out where there is but one.
        """
        times = slot_times(self._calendar, self._days)
        num_slots = self._calendar.num_slots
        took_place = ~np.isnan(self._reference).repeat(num_slots, axis=1)
        valid = took_place & times.valid & ~self._halted(times)
        accounting = replace(accounting, saturated=self._saturated, lost=self._lost)
        config = self._config
        frame = (2, *self._size)
        counts = None if self._dense is None else self._dense.reshape(len(self._codes), -1, *frame)
        names = {"count": "trades", "volume": "volume", "notional": "value of the trades"}
        dataset = frames_dataset(
            counts,
            times,
            valid,
            calendar=self._calendar,
            channels=("B", "S"),
            series=self._codes,
            size=self._size,
            attrs={
                "axes": {"x": axis_record(config.price_axis), "y": axis_record(config.volume_axis)},
                "accounting": accounting.to_json(),
                "count_cap": config.count_cap,
                "value": names[config.value],
                "pixel": "log1p" if config.pixel_scale else "linear",
            },
        )
        by_time = {"reference": (self._reference, "price that columns are about"), "r_max": (self._r_max, "log ratio")}
        for name, (values, about) in by_time.items():
            repeated = values.repeat(num_slots, axis=1)
            dataset = dataset.assign_coords({name: (("series", "time"), repeated, {"long_name": about})})
        if self._dense is None:
            dataset = self._with_sparse(dataset, (len(self._codes), len(times.time), *frame))
        return dataset.isel(series=0) if squeeze and len(self._codes) == 1 and counts is not None else dataset

    def _halted(self, times: SlotTimes) -> np.ndarray:
        halted = np.zeros((len(self._codes), len(times.time)), dtype=bool)
        clock = np.tile(self._calendar.layout.start, len(self._days))
        for halt in self._halts:
            if halt.code in self._places:
                slots = (times.day == halt.day) & (clock >= halt.start) & (clock < halt.stop)
                halted[self._places[halt.code], slots] = True
        return halted

    def _with_sparse(self, dataset: xr.Dataset, shape: tuple[int, ...]) -> xr.Dataset:
        places = sorted(self._sparse)
        offsets = [(series * len(self._days) + day) * self._cells_per_day for series, day in places]
        cells = [self._sparse[place][0] + offset for place, offset in zip(places, offsets, strict=True)]
        counts = [self._sparse[place][1] for place in places]
        variables, record = sparse_variables(
            np.concatenate(cells), np.concatenate(counts), dims=("series", "time", "channel", "y", "x"), shape=shape
        )
        about = {"units": "1", "count_cap": self._config.count_cap}
        variables["count"][2].update({**about, "dense_long_name": f"{dataset.attrs['value']} per cell"})
        return dataset.assign(variables).assign_attrs(record)
