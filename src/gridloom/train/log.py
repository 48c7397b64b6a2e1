"""What a run says: metrics.jsonl, TensorBoard events, and progress on the terminal."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from gridloom.core.atomic import write_text
from gridloom.core.errors import DataError

__all__ = ["RunLog", "read_metrics"]

_LOGGER = logging.getLogger(__name__)
_QUIET_SECONDS = 15.0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl: one record per line with `step`, `part` and the figures.

    The last line may be cut off by a kill; it is left out.
    """
    if not path.is_file():
        raise DataError(f"{path}: expected the metrics of a run, there are none")
    records = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise DataError(f"{path}:{number}: not a JSON record: {line[:80]!r}") from None
    return records


class RunLog:
    """Writes records as they come and shows where the run is.

    On a terminal there is a bar with rate and time left; elsewhere a line now and then.

    Args:
        folder: The run folder.
        first_step: Step from which the run goes on; records from later steps, of an attempt that was killed, are
            dropped.
        last_step: Steps in all.
        tensorboard: Write events too, where the package is installed.
        show: Show progress.
    """

    def __init__(self, folder: Path, *, first_step: int, last_step: int, tensorboard: bool, show: bool) -> None:
        self.path = folder / "metrics.jsonl"
        kept = (
            [record for record in read_metrics(self.path) if record["step"] <= first_step] if self.path.exists() else []
        )
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self.path.open("a", buffering=1)
        self._events = self._open_events(folder, first_step) if tensorboard else None
        self._last_step = last_step
        self._start, self._first_step, self._shown = time.monotonic(), first_step, time.monotonic()
        console = Console(stderr=True)
        self._show = show
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not (show and console.is_terminal),
            transient=False,
        )
        self._task = self._bar.add_task("training", total=last_step, completed=first_step, rate="", figures="")

    @staticmethod
    def _open_events(folder: Path, first_step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return None
        return SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def __enter__(self) -> "RunLog":
        """Start the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._bar.stop()
        self._file.close()
        if self._events is not None:
            self._events.close()

    def record(self, step: int, part: str, figures: Mapping[str, float]) -> None:
        """Write one record."""
        self._file.write(json.dumps({"step": step, "part": part, **figures}) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(f"{part}/{name}", value, step)

    @property
    def shows_pictures(self) -> bool:
        """Whether there is somewhere to write pictures to."""
        return self._events is not None

    def pictures(self, step: int, part: str, maps: Mapping[str, Tensor]) -> None:
        """Write maps [row, column], from 0 to 1, as TensorBoard events; without TensorBoard nothing is written."""
        if self._events is not None:
            for name, values in maps.items():
                self._events.add_image(f"{part}/{name}", values.float().clamp(0, 1).cpu(), step, dataformats="HW")

    def progress(self, step: int, figures: Mapping[str, float] | None = None) -> None:
        """Show that a step is done."""
        elapsed = time.monotonic() - self._start
        rate = (step - self._first_step) / max(elapsed, 1e-9)
        text = "" if figures is None else "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        fields = {"rate": f"{rate:.1f} steps/s"} | ({"figures": text} if text else {})
        self._bar.update(self._task, completed=step, **fields)  # type: ignore[arg-type]
        if self._show and self._bar.disable and time.monotonic() - self._shown > _QUIET_SECONDS:
            self._shown = time.monotonic()
            left = (self._last_step - step) / max(rate, 1e-9)
            _LOGGER.info("step %d of %d, %.1f steps/s, %.0f s left  %s", step, self._last_step, rate, left, text)
