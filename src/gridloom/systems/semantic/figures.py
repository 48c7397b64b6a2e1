"""Pictures of the semantic system."""

from typing import TYPE_CHECKING

import numpy as np

from gridloom.core.errors import DataError
from gridloom.core.system import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["reconstructions"]

_ROWS = 4


def reconstructions(view: View) -> "Figure":
    """Held-out windows: truth, what the autoencoder and the best baseline make of it, and the autoencoder's error."""
    from gridloom.viz.field import field_rows

    model = view.trained.config.data.variables[0]
    methods = list(view.predictions)
    if len(methods) < 2:
        raise DataError("a picture of reconstructions needs the model and a baseline")
    baseline, system = methods[0], methods[-1]
    truth = view.task.truth[model].values
    present = np.flatnonzero(np.isfinite(truth).mean(axis=(1, 2)) > 0.25)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, _ROWS).round().astype(int))]
    answers = {name: view.predictions[name][model].values for name in (baseline, system)}
    rows = []
    for place in chosen:
        known = np.isfinite(truth[place])
        row = {"truth": truth[place]}
        row |= {name: np.where(known, values[place], np.nan) for name, values in answers.items()}
        rows.append({**row, f"{system} error": row[system] - truth[place]})
    raise NotImplementedError(rows)
