"""Which side a trade is on: +1 bought by the aggressor, -1 sold, 0 unknown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int8

__all__ = ["TickState", "side_from_flag", "side_from_orders", "tick_rule"]


@dataclass(frozen=True)
class TickState:
    """Where the tick rule stopped."""

    price: float
    side: int


def tick_rule(
    price: np.ndarray, last: TickState | None = None, *, session: np.ndarray | None = None
) -> tuple[Int8[np.ndarray, " row"], TickState | None]:
    """Sign trades by the last change of price: up +1, down -1, unchanged as before; +1 until the first change.

    Args:
        price: In order of time. What is not a finite number gets 0 and is passed over.
        last: What an earlier call returned, to go on from there.
        session: Where it changes from row to row the rule starts afresh; then `last` counts only if it is None.

    Returns:
        Sides, and the state for the next batch (`last` if no price was usable).
    """
    price = np.asarray(price, dtype=np.float64)
    usable = np.isfinite(price)
    if not usable.all():
        side = np.zeros(price.shape, dtype=np.int8)
        side[usable], state = tick_rule(price[usable], last, session=None if session is None else session[usable])
        return side, state
    if not price.size:
        return np.zeros(0, dtype=np.int8), last
    change = np.empty(price.shape, dtype=np.int8)
    change[0] = 1 if last is None else np.sign(price[0] - last.price) or last.side
    np.sign(np.diff(price), out=change[1:], casting="unsafe")
    if session is not None:
        change[1:][session[1:] != session[:-1]] = 1
    latest = np.maximum.accumulate(np.where(change != 0, np.arange(price.size, dtype=np.int32), 0))
    side = change[latest]
    return side, TickState(float(price[-1]), int(side[-1]))


def side_from_flag(
    values: Sequence[Any] | np.ndarray | pd.Series, buy: str = "B", sell: str = "S"
) -> Int8[np.ndarray, " row"]:
    """Read sides from a column of flags; case and blanks around them do not matter, all else is unknown.

    Args:
        values: Strings, bytes, a pandas column; missing ones are unknown.
        buy: The flag for bought.
        sell: The flag for sold.
    """
    codes, names = pd.factorize(np.asarray(values), use_na_sentinel=True)
    known = {buy.strip().upper(): 1, sell.strip().upper(): -1}
    sides = [known.get(_text(name).strip().upper(), 0) for name in names]
    side: np.ndarray = np.array([*sides, 0], dtype=np.int8)[codes]
    return side


def side_from_orders(buy_id: np.ndarray, sell_id: np.ndarray) -> Int8[np.ndarray, " row"]:
    """Sign trades by the numbers of their two orders: the larger one came later and is the aggressor.

    Args:
        buy_id: Numbers of the buying orders; 0, negative or NaN where there is none.
        sell_id: Numbers of the selling orders.

    Returns:
        Sides; 0 where a number is missing or both are the same.
    """
    side = np.subtract(buy_id > sell_id, buy_id < sell_id, dtype=np.int8)
    side[~((buy_id > 0) & (sell_id > 0))] = 0
    return side


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
