"""Pictures of the semantic system."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gridloom.core.errors import DataError
from gridloom.core.system import View
from gridloom.viz.field import field_rows
from gridloom.viz.style import FULL_CM

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any

__all__ = ["reconstructions"]

_ROWS = 4


def reconstructions(view: View) -> Figure:
    """Held-out windows: truth, what the best baseline and the autoencoder make of it, and the autoencoder's error.

    The first variable is drawn; missing cells are gray.
    """
    methods = list(view.predictions)
    if len(methods) < 2:
        raise DataError("a picture of reconstructions needs the model and a baseline")
    baseline, system = methods[0], methods[-1]
    name = view.trained.config.data.variables[0]
    truth = view.task.truth[name]
    present = np.flatnonzero(np.isfinite(truth.values).mean(axis=(1, 2)) > 0.25)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, _ROWS).round().astype(int))]
    rows = []
    for place in chosen:
        values = truth.values[place]
        row = {"truth": values}
        for method in (baseline, system):
            row[method] = np.where(np.isfinite(values), view.predictions[method][name].values[place], np.nan)
        rows.append({**row, "error": row[system] - values})
    crosses_zero = bool((truth < 0).any() and (truth > 0).any())
    return field_rows(
        rows,
        labels=[_place(view, int(place)) for place in chosen],
        unit=str(truth.attrs.get("units", "1")),
        center=0.0 if crosses_zero else None,
        origin="lower",
        width_cm=FULL_CM,
    )


def _place(view: View, sample: int) -> str:
    """Where a window lies, as far as numbers say, in one line."""
    parts = []
    for name, values in view.task.truth.coords.items():
        if name == "window" or values.dims != ("sample",) or values.dtype.kind not in "iuf":
            continue
        value = float(values.values[sample])
        if str(name).startswith("lat"):
            parts.append(f"{abs(value):.0f}°{'S' if value < 0 else 'N'}")
        elif str(name).startswith("lon"):
            value = (value + 180) % 360 - 180
            parts.append(f"{abs(value):.0f}°{'W' if value < 0 else 'E'}")
        else:
            parts.append(f"{name} {value:.4g}")
    return ", ".join(parts) or f"window {sample}"
