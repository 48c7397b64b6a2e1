"""Pictures of the semantic system."""

import numpy as np

from gridloom.core.errors import DataError
from gridloom.core.system import Drawing, View
from gridloom.viz.field import field_rows
from gridloom.viz.place import describe_place
from gridloom.viz.style import FULL_CM

__all__ = ["reconstructions"]

_ROWS = 4


def reconstructions(view: View) -> Drawing:
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
    made = field_rows(
        rows,
        labels=[_place(view, int(place)) for place in chosen],
        unit=str(truth.attrs.get("units", "1")),
        center=0.0 if crosses_zero else None,
        origin="lower" if view.task.truth.attrs.get("origin") == "lower" else "upper",
        width_cm=FULL_CM,
    )
    caption = f"Held-out windows: truth, {baseline}, the model, and the model's error. Gray is missing."
    data = {f"{column}_{number}": field for number, row in enumerate(rows) for column, field in row.items()}
    return Drawing(figure=made, caption=caption, data=data)


def _place(view: View, sample: int) -> str:
    """Where a window lies, as far as numbers say."""
    numbers = {
        str(name): float(values.values[sample])
        for name, values in view.task.truth.coords.items()
        if name != "window" and values.dims == ("sample",) and values.dtype.kind in "iuf"
    }
    return describe_place(numbers) or f"window {sample}"
