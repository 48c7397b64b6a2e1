"""A batch as what the networks take.

Fields: each modality by its name; `static`; `NAME.known`, further channels of each cell, last. Features: `times`,
numbers of each time step; `NAME.places`, numbers of each place of tokens; `NAME.hidden`, cells to be predicted that the
source has chosen.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from einops import reduce
from torch import Tensor
from torch.nn import functional as F

from gridloom.core.batch import Batch
from gridloom.systems.crossmae.context import Context
from gridloom.systems.crossmae.patches import Patches, SeriesPatches

__all__ = ["HIDDEN", "KNOWN", "PLACES", "STATIC", "TIMES", "Inputs", "read_inputs"]

STATIC, TIMES = "static", "times"
KNOWN, PLACES, HIDDEN = ".known", ".places", ".hidden"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything by modality.

    Attributes:
        values: As in the batch; cells that are hidden are still there.
        valid: Cells that were observed, hidden or not.
        visible: Cells that may be looked at: observed, and not hidden by the source.
        hidden: Cells that the source hides; None where it leaves that to the masking.
        has_data: Patches with an observed cell.
        static: Static attributes; None where there are none.
        contexts: What else is known.
    """

    values: Mapping[str, Tensor]
    valid: Mapping[str, Tensor]
    visible: Mapping[str, Tensor]
    hidden: Mapping[str, Tensor] | None
    has_data: Mapping[str, Tensor]
    static: Tensor | None
    contexts: Mapping[str, Context]


def read_inputs(batch: Batch, patches: Mapping[str, Patches]) -> Inputs:
    """Take a batch apart."""
    values = {name: batch.fields[name].values for name in patches}
    valid = {name: batch.fields[name].valid.expand_as(values[name]) for name in patches}
    hidden = {name: batch.features[name + HIDDEN] for name in patches if name + HIDDEN in batch.features}
    visible = {name: valid[name] & ~hidden[name] if name in hidden else valid[name] for name in patches}
    contexts = {
        name: Context(
            times=_times(batch, cut),
            places=batch.features.get(name + PLACES),
            known=batch.fields[name + KNOWN].values if name + KNOWN in batch.fields else None,
        )
        for name, cut in patches.items()
    }
    return Inputs(
        values=values,
        valid=valid,
        visible=visible,
        hidden=hidden or None,
        has_data={name: cut.cut(valid[name]).any(-1) for name, cut in patches.items()},
        static=batch.fields[STATIC].values if STATIC in batch.fields else None,
        contexts=contexts,
    )


def _times(batch: Batch, patches: Patches) -> Tensor | None:
    """Numbers of each time of tokens: the mean over the steps of a patch."""
    times = batch.features.get(TIMES)
    if times is None or not isinstance(patches, SeriesPatches) or patches.steps == 1:
        return times
    short = patches.num_times(times.shape[1]) * patches.steps - times.shape[1]
    whole = F.pad(times.transpose(1, 2), (0, short), mode="replicate") if short else times.transpose(1, 2)
    return reduce(whole, "batch feature (times step) -> batch times feature", "mean", step=patches.steps)
