"""Events on a grid: calendars, axes, sides, limits of prices; from rows of a table to counts per slot and cell."""

from gridloom.grid.events.accounting import Accounting
from gridloom.grid.events.axes import LinearAxis, PriceAxis, VolumeAxis, axis_record
from gridloom.grid.events.calendar import CALENDARS, Calendar, Segment, open_calendar
from gridloom.grid.events.folder import FolderResult, rasterize_folder
from gridloom.grid.events.frames import frames_dataset, open_frames
from gridloom.grid.events.inverse import activity, center_of_price, counts_of, describe_frames, imbalance, pixels
from gridloom.grid.events.limits import A_SHARE_LIMITS, Limit, r_max_of, read_limits
from gridloom.grid.events.locate import SlotTimes, locate, locate_local, slot_times
from gridloom.grid.events.raster import Accumulator, EventSpec, Raster, rasterize
from gridloom.grid.events.side import TickState, side_from_flag, side_from_orders, tick_rule
from gridloom.grid.events.store import to_dense, to_sparse
from gridloom.grid.events.synthetic import BAD_ROWS, TradeDays, trade_days
from gridloom.grid.events.trade_files import write_trade_days
from gridloom.grid.events.trades import FileResult, StockDay, rasterize_trades
from gridloom.grid.events.trades_config import TradesConfig
from gridloom.grid.events.zone import local_to_utc, utc_to_local

__all__ = [
    "A_SHARE_LIMITS",
    "BAD_ROWS",
    "CALENDARS",
    "Accounting",
    "Accumulator",
    "Calendar",
    "EventSpec",
    "FileResult",
    "FolderResult",
    "Limit",
    "LinearAxis",
    "PriceAxis",
    "Raster",
    "Segment",
    "SlotTimes",
    "StockDay",
    "TickState",
    "TradeDays",
    "TradesConfig",
    "VolumeAxis",
    "activity",
    "axis_record",
    "center_of_price",
    "counts_of",
    "describe_frames",
    "frames_dataset",
    "imbalance",
    "local_to_utc",
    "locate",
    "locate_local",
    "open_calendar",
    "open_frames",
    "pixels",
    "r_max_of",
    "rasterize",
    "rasterize_folder",
    "rasterize_trades",
    "read_limits",
    "side_from_flag",
    "side_from_orders",
    "slot_times",
    "tick_rule",
    "to_dense",
    "to_sparse",
    "trade_days",
    "utc_to_local",
    "write_trade_days",
]
