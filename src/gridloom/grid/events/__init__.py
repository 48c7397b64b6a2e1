"""Events on a grid: calendars, axes, sides, limits of prices; from rows of a table to counts per slot and cell."""

from gridloom.grid.events.axes import LinearAxis, PriceAxis, VolumeAxis, axis_record
from gridloom.grid.events.calendar import CALENDARS, Calendar, Segment, open_calendar
from gridloom.grid.events.inverse import activity, center_of_price, counts_of, describe_frames, imbalance, pixels
from gridloom.grid.events.limits import A_SHARE_LIMITS, Limit, r_max_of, read_limits
from gridloom.grid.events.locate import SlotTimes, locate, locate_local, slot_times
from gridloom.grid.events.side import TickState, side_from_flag, side_from_orders, tick_rule
from gridloom.grid.events.synthetic import BAD_ROWS, TradeDays, trade_days
from gridloom.grid.events.trade_files import write_trade_days
from gridloom.grid.events.zone import local_to_utc, utc_to_local

__all__ = [
    "A_SHARE_LIMITS",
    "BAD_ROWS",
    "CALENDARS",
    "Calendar",
    "Limit",
    "LinearAxis",
    "PriceAxis",
    "Segment",
    "SlotTimes",
    "TickState",
    "TradeDays",
    "VolumeAxis",
    "activity",
    "axis_record",
    "center_of_price",
    "counts_of",
    "describe_frames",
    "imbalance",
    "local_to_utc",
    "locate",
    "locate_local",
    "open_calendar",
    "pixels",
    "r_max_of",
    "read_limits",
    "side_from_flag",
    "side_from_orders",
    "slot_times",
    "tick_rule",
    "trade_days",
    "utc_to_local",
    "write_trade_days",
]
