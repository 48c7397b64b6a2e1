"""What is finished of a folder of files: one small file each, so that a run that was stopped goes on where it was."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gridloom.core.atomic import new_file
from gridloom.grid.events.accounting import Accounting
from gridloom.grid.events.trades import FileResult, StockDay

__all__ = ["Part", "Parts"]


@dataclass(frozen=True)
class Part:
    """A finished file: what is in it, but for the counts."""

    path: Path
    accounting: Accounting
    days: tuple[Mapping[str, Any], ...]
    """code, day, reference, r_max, num_cells of each stock-day, in the order of the counts."""


class Parts:
    """The parts of one output."""

    def __init__(self, folder: Path, digest: str) -> None:
        """Open.

        Args:
            folder: Of the parts; made when one is written.
            digest: Of everything but the file that its counts depend on; parts with another one count for nothing.
        """
        self.folder = folder
        self._digest = digest

    def _place(self, name: str) -> Path:
        return self.folder / f"{sha256(name.encode()).hexdigest()[:32]}.npz"

    def _stamp(self, file: Path) -> dict[str, Any]:
        state = file.stat()
        return {"digest": self._digest, "size": state.st_size, "modified": state.st_mtime_ns}

    def write(self, name: str, file: Path, result: FileResult) -> None:
        """Keep what a file gave, all or nothing."""
        days = [
            {
                "code": day.code,
                "day": day.day,
                "reference": day.reference,
                "r_max": day.r_max,
                "num_cells": len(day.cells),
            }
            for day in result.days
        ]
        record = {**self._stamp(file), "file": name, "accounting": result.accounting.to_json(), "days": days}
        cells = np.concatenate([day.cells for day in result.days])
        counts = np.concatenate([day.counts for day in result.days])
        content = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
        with new_file(self._place(name)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, record=content, cells=cells, counts=counts)

    def find(self, name: str, file: Path) -> Part | None:
        """Return the part of a file, if there is one and neither the file nor the settings changed since."""
        path = self._place(name)
        if not path.is_file():
            return None
        try:
            # opened here: what numpy opens stays open where the file is damaged
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
                record = json.loads(bytes(content["record"]))
            stamp = self._stamp(file)
            if any(record[key] != value for key, value in stamp.items()) or record["file"] != name:
                return None
            return Part(path, Accounting.from_json(record["accounting"]), tuple(record["days"]))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return None  # damaged: as if it were not there

    @staticmethod
    def stock_days(part: Part) -> Iterator[StockDay]:
        """Read the counts of a part."""
        with np.load(part.path, allow_pickle=False) as content:
            cells, counts = content["cells"], content["counts"]
        begin = 0
        for day in part.days:
            end = begin + int(day["num_cells"])
            yield StockDay(
                code=str(day["code"]),
                day=int(day["day"]),
                reference=float(day["reference"]),
                r_max=float(day["r_max"]),
                cells=cells[begin:end],
                counts=counts[begin:end],
            )
            begin = end
