"""The trained module as a function of tensors, for export: one step of a stream, with its state in and out."""

import torch
from torch import Tensor, nn

from gridloom.core.errors import ConfigError
from gridloom.core.graph import Graph
from gridloom.core.random import normal, uniform
from gridloom.core.system import Trained
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.gates import SpatialGate
from gridloom.systems.temporal.module import TemporalModule
from gridloom.systems.temporal.objective import FlickerFree

__all__ = ["StreamStep", "temporal_graph"]

_SIZES = ((2, 12, 20), (1, 17, 10), (3, 9, 14))
_GATE_CELLS, _PREDICTOR_CELLS = 5, 9
"""Least size of an axis: torch makes a case of its own of one cell at the top of a pyramid, here of 4 and of 8."""
_MEANINGS = {
    "z_prev": "the fused latent of the previous frame, or that frame where there was none before; NaN where unknown",
    "z_cur": "the latent of the current frame; NaN where missing",
    "flow": "offsets (dx, dy) in cells of the latents, as flow_direction says; NaN or infinite where unknown",
    "variance": "of z_prev, in units of noise: 1 where it is a plain frame",
    "noise": "variance of the flicker in one frame by channel",
    "z_fused": "the current frame without flicker",
    "variance_fused": "of z_fused, in units of noise",
    "alpha": "weight of the past, 0 where it says nothing",
    "valid": "where the past says something",
}


class StreamStep(nn.Module):
    """One step of a stream: `fuse` between tensors in and tensors out, in the order of `inputs` and `outputs`.

    Attributes:
        inputs: Axes after the batch by name; without `flow` if the module predicts it.
        outputs: Axes after the batch by name.
    """

    def __init__(self, module: TemporalModule) -> None:
        super().__init__()
        self.module = module
        latent, cell = (module.channels, "y", "x"), (1, "y", "x")
        self.inputs: dict[str, tuple[int | str, ...]] = {
            "z_prev": latent,
            "z_cur": latent,
            "flow": (2, "y", "x"),
            "variance": cell,
            "noise": (module.channels,),
        }
        if module.predictor is not None:
            del self.inputs["flow"]
        self.outputs: dict[str, tuple[int | str, ...]] = {
            "z_fused": latent,
            "variance_fused": cell,
            "alpha": cell,
            "valid": cell,
        }

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Fuse."""
        given = dict(zip(self.inputs, tensors, strict=True))
        z, _, aux = self.module(
            given["z_prev"],
            given["z_cur"],
            flow=given.get("flow"),
            variance=given["variance"],
            noise=given["noise"],
        )
        alpha = torch.where(aux["valid"], aux["alpha"], torch.zeros_like(given["variance"]))
        return z, aux["variance"], alpha, aux["valid"]


def temporal_graph(trained: Trained[TemporalConfig]) -> Graph:
    """What `gridloom export` writes: one step of a stream, for any number of samples and cells.

    Styles are left out. The state of a stream is `z_fused` and `variance_fused`, which are the next step's `z_prev`
    and `variance`; a first pair, or one after a cut, has the variance 1. Occluded cells are told by a flow that is NaN
    there.

    Raises:
        ConfigError: A model with `compat="seed"`.
    """
    if trained.config.model.compat == "seed":
        raise ConfigError("model.compat 'seed' is there to be compared with, it is not exported; train without it")
    assert isinstance(trained.objective, FlickerFree)
    module = trained.objective.module.eval()
    step = StreamStep(module).eval()
    predicted = module.predictor is not None
    least = _PREDICTOR_CELLS if predicted else _GATE_CELLS if isinstance(module.gate, SpatialGate) else 1
    return Graph(
        module=step,
        inputs=step.inputs,
        outputs=step.outputs,
        least={"y": least, "x": least},
        examples=[_example(step, *size) for size in _SIZES],
        record={
            "flow_direction": None if predicted else module.flow_direction,
            "meaning": {name: _MEANINGS[name] for name in (*step.inputs, *step.outputs)},
        },
    )


def _example(step: StreamStep, batch: int, height: int, width: int) -> dict[str, Tensor]:
    """A pair with everything that may occur: motion out of the frame, unknown flow, cells missing in either frame."""
    key = torch.arange(batch)
    channels = step.module.channels
    clean = normal(key, (channels, height, width), "clean").cumsum(2).cumsum(3) / 8
    noise = 0.05 + 0.1 * uniform(key, (channels,), "noise")
    deviation = noise.sqrt()[:, :, None, None]
    z_prev, z_cur = (clean + deviation * normal(key, (channels, height, width), name) for name in ("before", "now"))
    flow = 1.5 * normal(key, (2, height, width), "flow")
    flow[:, :, 5, 3] = torch.nan
    z_prev[:, :, 2, 2] = torch.nan
    if "flow" in step.inputs:
        z_cur[:, :1, -2, -3] = torch.nan
        flow[:, :, -3:, -4:] = 0.25  # the past is known where the frame is not: nothing that comes out is NaN
    variance = 0.1 + 0.9 * uniform(key, (1, height, width), "variance")
    tensors = {"z_prev": z_prev, "z_cur": z_cur, "flow": flow, "variance": variance, "noise": noise}
    return {name: tensors[name] for name in step.inputs}
