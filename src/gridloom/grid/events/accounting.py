"""What became of every row: nothing is lost without being counted."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gridloom.core.errors import DataError

__all__ = ["Accounting"]


@dataclass(frozen=True, kw_only=True)
class Accounting:
    """Rows by what became of them.

    Every row counts once. What is wrong is looked for in this order: malformed, duplicate, time, price (x), volume (y
    or weight), outside of the session, no reference price, side (channel), outside of the axes.
    """

    rows: int = 0
    """All that came in."""
    binned: int = 0
    """Counted in a cell."""
    out_of_session: int = 0
    """At a time that belongs to no slot."""
    unknown_side: int = 0
    """Whose channel is not among the known ones."""
    bad_time: int = 0
    """Time missing or not readable."""
    bad_price: int = 0
    """x missing, not readable, or for prices not above zero."""
    bad_volume: int = 0
    """y or weight missing, not readable, or negative where it must not be."""
    malformed: int = 0
    """Lines with another number of columns than the first."""
    duplicates: int = 0
    """Left out since their key came before."""
    out_of_range: int = 0
    """Outside of an axis that does not clip."""
    no_reference: int = 0
    """Of instruments without a reference price, in files that hold several."""
    saturated: int = 0
    """Cells (not rows) whose value is over the cap."""
    lost: int = 0
    """By how much they are over it, together."""

    @property
    def invalid(self) -> int:
        """Rows that cannot be read, for whatever reason."""
        return self.bad_time + self.bad_price + self.bad_volume + self.malformed

    def __add__(self, other: "Accounting") -> "Accounting":
        """Return the accounting of both together."""
        names = [item.name for item in dataclasses.fields(self)]
        return Accounting(**{name: getattr(self, name) + getattr(other, name) for name in names})

    def check(self) -> "Accounting":
        """Assert that every row is accounted for; returns itself."""
        known = self.binned + self.out_of_session + self.unknown_side + self.invalid + self.duplicates
        assert self.rows == known + self.out_of_range + self.no_reference, f"rows are lost or counted twice: {self}"
        return self

    def to_json(self) -> dict[str, int]:
        """Return all numbers, with `invalid` among them."""
        return {**dataclasses.asdict(self), "invalid": self.invalid}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Accounting":
        """Build from `to_json`."""
        names = {item.name for item in dataclasses.fields(cls)}
        try:
            return cls(**{name: int(value) for name, value in content.items() if name in names})
        except (TypeError, ValueError):
            raise DataError(f"accounting: expected whole numbers by name, got {dict(content)!r:.200}") from None
