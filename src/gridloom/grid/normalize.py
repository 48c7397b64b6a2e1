"""Normalizing: named, invertible steps per variable, fitted on the training part alone and kept as JSON."""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr

from gridloom.core.config import from_dict, to_dict
from gridloom.core.errors import ConfigError, DataError, UnknownNameError
from gridloom.grid.axes import numeric_variables
from gridloom.grid.blocks import Positions, blocks, calendar_positions
from gridloom.grid.statistics import Moments
from gridloom.grid.steps import STEPS, Bounds, Climatology, Log1p, Standard, Step

__all__ = ["STEPS", "Bounds", "Climatology", "Log1p", "Normalizer", "Standard", "Step", "fit_normalizer"]


@dataclass(frozen=True)
class Normalizer:
    """The steps of each variable, in the order in which they are applied."""

    steps: Mapping[str, tuple[Step, ...]]
    """Steps by variable."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(self.steps)

    def needs_position(self, variable: str) -> bool:
        """Whether `apply` and `invert` need positions for this variable (see `grid.blocks.calendar_positions`)."""
        return any(isinstance(step, Climatology) for step in self._of(variable))

    def apply(self, variable: str, values: np.ndarray, *, position: np.ndarray | None = None) -> np.ndarray:
        """Normalize values of a variable.

        Args:
            variable: Its name.
            values: In data units; NaN stays NaN. Computed in float64.
            position: Position in the climatology, integers broadcastable to `values`; needed with a climatology only.

        Returns:
            float32.

        Raises:
            UnknownNameError: A variable that was not fitted.
            DataError: Values or positions that a step cannot take.
        """
        exact = np.asarray(values, dtype=np.float64)
        for step in self._of(variable):
            exact = _named(variable, step.apply, exact, position)
        return exact.astype(np.float32)

    def invert(self, variable: str, values: np.ndarray, *, position: np.ndarray | None = None) -> np.ndarray:
        """Bring normalized values back to data units, as float32; the arguments are those of `apply`."""
        exact = np.asarray(values, dtype=np.float64)
        for step in reversed(self._of(variable)):
            exact = _named(variable, step.invert, exact, position)
        return exact.astype(np.float32)

    def invert_scale(self, variable: str, std: np.ndarray) -> np.ndarray:
        """Bring a standard deviation (or another difference) back to data units, as float32.

        Raises:
            DataError: A step is not affine, so that there is no one scale.
        """
        scale = 1.0
        for step in self._of(variable):
            if step.scale is None:
                raise DataError(
                    f"variable {variable!r}: a spread cannot be brought back through {step.kind!r}; bring back "
                    f"quantiles or samples instead"
                )
            scale *= step.scale
        return (np.asarray(std, dtype=np.float64) * scale).astype(np.float32)

    def _of(self, variable: str) -> tuple[Step, ...]:
        if variable not in self.steps:
            raise UnknownNameError("normalized variable", variable, self.steps)
        return self.steps[variable]

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold, without loss; `from_json` takes it back."""
        return {
            variable: [{"kind": step.kind, **to_dict(step)} for step in steps] for variable, steps in self.steps.items()
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> "Normalizer":
        """Read a record of `to_json`, strictly.

        Raises:
            ConfigError: Not a mapping of lists of steps, an unknown or missing key, a value that is not finite.
            UnknownNameError: No such step.
        """
        steps = {}
        for variable, items in record.items():
            if not isinstance(items, Sequence) or isinstance(items, str):
                raise ConfigError(f"normalizer.{variable}: expected a list of steps, got {items!r:.80}")
            steps[variable] = tuple(_step(item, f"normalizer.{variable}[{i}]") for i, item in enumerate(items))
        return Normalizer(steps)


def _named(variable: str, function: Callable, values: np.ndarray, position: np.ndarray | None) -> np.ndarray:
    try:
        return np.asarray(function(values, position))
    except DataError as error:
        raise DataError(f"variable {variable!r}: {error}") from None


def _step(item: Any, where: str) -> Step:
    if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
        raise ConfigError(f"{where}: expected a step with its kind, got {item!r:.80}")
    if item["kind"] not in STEPS:
        raise UnknownNameError("normalizing step", item["kind"], STEPS)
    step: Step = from_dict(
        STEPS[item["kind"]], {key: value for key, value in item.items() if key != "kind"}, where=where
    )
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(isinstance(number, str) or math.isfinite(number) for number in numbers):
            raise ConfigError(f"{where}.{field.name}: expected finite numbers, got {value!r:.80}")
    if step.scale == 0:
        raise ConfigError(f"{where}: a {step.kind!r} step of scale 0 cannot be inverted")
    return step


def fit_normalizer(
    dataset: xr.Dataset,
    *,
    kinds: Sequence[str] = ("standard",),
    bounds: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> Normalizer:
    """Fit the steps of every variable, one after the other: each sees what the ones before it give.

    Statistics are streamed in float64; missing cells are left out.

    Args:
        dataset: Choose the variables first: `dataset[["sst"]]`.
        kinds: Names of the steps in order: `standard`, `log1p`, `bounds`, `climatology`.
        bounds: Half-open index ranges of the training part, `splits.bounds("train")`.

    Raises:
        UnknownNameError: No such step.
        DataError: A variable without a single value in the training part, or one that a step cannot take.
    """
    for kind in kinds:
        if kind not in STEPS:
            raise UnknownNameError("normalizing step", kind, STEPS)
    names = numeric_variables(dataset, [str(name) for name in dataset.data_vars])
    return Normalizer({name: _fit_variable(dataset, name, kinds, bounds) for name in names})


def _fit_variable(
    dataset: xr.Dataset, name: str, kinds: Sequence[str], bounds: Mapping[str, tuple[int, int]]
) -> tuple[Step, ...]:
    steps: list[Step] = []
    cycle = calendar_positions(dataset) if "climatology" in kinds else None
    if cycle is not None and cycle.dim not in dataset[name].dims:
        raise DataError(f"variable {name!r}: a climatology needs the dimension {cycle.dim!r}, it has none")
    for kind in kinds:
        positions = cycle if kind == "climatology" else None
        moments = [Moments() for _ in range(positions.count if positions else 1)]
        for ranges, values in blocks(dataset[name], bounds):
            position = cycle.along(dataset[name].dims, ranges) if cycle is not None else None
            exact = np.asarray(values, dtype=np.float64)
            for step in steps:
                exact = _named(name, step.apply, exact, position)
            for place, part in enumerate(moments):
                part.update(exact, position == place if positions is not None and position is not None else None)
        steps.append(_make_step(kind, name, positions, moments))
    return tuple(steps)


def _make_step(kind: str, name: str, positions: Positions | None, moments: list[Moments]) -> Step:
    """Make a step from the statistics of what the steps before it give."""
    if not any(part.count for part in moments):
        raise DataError(
            f"variable {name!r}: every cell of the training part is missing; leave the variable out, or split elsewhere"
        )
    if positions is not None:
        empty = [place for place, part in enumerate(moments) if not part.count]
        if empty:
            raise DataError(
                f"variable {name!r}: a climatology needs every position along {positions.dim!r} in the training part, "
                f"{len(empty)} of {len(moments)} are missing, first {empty[:3]}; use another step, or more data"
            )
        return Climatology(dim=positions.dim, values=tuple(part.mean for part in moments))
    (found,) = moments
    if kind == "log1p":
        if found.minimum <= -1:
            raise DataError(f"variable {name!r}: log1p needs values above -1, the smallest is {found.minimum:g}")
        return Log1p()
    constant = found.std == 0
    if constant:
        warnings.warn(
            f"variable {name!r} is constant ({found.minimum:g}) in the training part: it becomes 0", stacklevel=2
        )
    if kind == "standard":
        # the mean of equal numbers is rounded; the number itself is not
        return Standard(mean=found.minimum if constant else found.mean, std=1.0 if constant else found.std)
    return Bounds(low=found.minimum, high=found.maximum)
