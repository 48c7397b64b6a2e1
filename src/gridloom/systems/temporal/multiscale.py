"""The module on several resolutions of a decoder's features."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gridloom.core.errors import DataError
from gridloom.nn.warp import rescale_flow
from gridloom.systems.temporal.fusion import GateKind
from gridloom.systems.temporal.module import TemporalModule

__all__ = ["MultiscaleTemporal"]


class MultiscaleTemporal(nn.Module):
    """A `TemporalModule` for each level of a pyramid; one flow, rescaled for each axis of each level."""

    def __init__(
        self, channels: Sequence[int], *, alpha_init: float = 0.3, gate: GateKind = "scalar", refine: bool = True
    ) -> None:
        """Build it.

        Args:
            channels: Channels of each level.
            alpha_init: Weight of the past at the start.
            gate: As in `TemporalModule`.
            refine: Whether moved features are refined.
        """
        super().__init__()
        self.levels = nn.ModuleList(
            TemporalModule(
                size,
                alpha_init=alpha_init,
                gate=gate,
                flow_direction="cur_to_prev",
                refiner="plain" if refine else "none",
            )
            for size in channels
        )

    def forward(
        self,
        previous: Sequence[Float[Tensor, "batch ..."]],
        current: Sequence[Float[Tensor, "batch ..."]],
        flow: Float[Tensor, "batch 2 y x"] | None = None,
    ) -> tuple[list[Tensor], list[dict[str, Any]]]:
        """Fuse the features of two frames, level by level.

        Args:
            previous: Features of the previous frame, [batch, channel, y, x] each, in the order of `channels`.
            current: Of the current one.
            flow: Flow **from the current frame to the previous one**, in pixels of its own grid, of any size.

        Returns:
            Fused features, and the `aux` of each level.

        Raises:
            DataError: Another number of levels.
        """
        if len(previous) != len(self.levels) or len(current) != len(self.levels):
            raise DataError(f"expected features of {len(self.levels)} levels, got {len(previous)} and {len(current)}")
        fused, details = [], []
        for level, before, now in zip(self.levels, previous, current, strict=True):
            scaled = None if flow is None else rescale_flow(flow, (now.shape[2], now.shape[3]))
            z, _, aux = level(before, now, flow=scaled)
            fused.append(z)
            details.append(aux)
        return fused, details
