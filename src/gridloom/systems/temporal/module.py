"""TemporalModule: warp the last latent onto the current one, decide cell by cell how far to trust it, and mix."""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from gridloom.core.errors import ConfigError, DataError
from gridloom.nn.warp import inside, warp
from gridloom.systems.temporal.flow import InverseKind, invert_flow
from gridloom.systems.temporal.fusion import (
    CELL_MARGIN,
    FlowDirection,
    Fusion,
    GateKind,
    Interpolation,
    OcclusionKind,
    RefinerKind,
    StyleGateKind,
    noise_of,
)
from gridloom.systems.temporal.gates import Evidence, Gain, KalmanGate, SpatialGate, constant_gain
from gridloom.systems.temporal.predictor import FlowPredictor
from gridloom.systems.temporal.refiner import Refiner
from gridloom.systems.temporal.seed import warp_seed
from gridloom.systems.temporal.style import StyleFusion

__all__ = ["TemporalModule"]

_NOT_SET = -1.0
_LEAST_NOISE = 1e-12  # variance of a flicker that is none
_WHOLE = 0.999  # a warped mask above this came from known cells alone


class TemporalModule(nn.Module):
    """Flow-warped, gated fusion of the latents of a video.

    `z_fused = alpha * z_warp_refined + (1 - alpha) * z_cur`, where `z_warp_refined` is the previous latent, moved onto
    the current frame and refined. What lies outside of the frame, is occluded, or is not finite is taken from `z_cur`.

    Attributes:
        alpha_param: Logit of alpha; a parameter if `learnable_alpha`, else a buffer. With `gate="spatial"` it is the
            bias of the gate's map.
        alpha_override: Replaces alpha where it is not negative; for gates with a map it is the most that alpha may be.
    """

    alpha_param: Tensor
    alpha_override: Tensor

    def __init__(  # noqa: PLR0913 - each is a choice of its own, by name
        self,
        channels: int,
        *,
        style_dim: int | None = None,
        alpha_init: float = 0.3,
        learnable_alpha: bool = True,
        gate: GateKind = "scalar",
        flow_direction: FlowDirection = "prev_to_cur",
        compat: Literal["seed"] | None = None,
        inverse: InverseKind = "fixed_point",
        interpolation: Interpolation = "bilinear",
        occlusion: OcclusionKind = "mask",
        refiner: RefinerKind = "plain",
        predict_flow: bool = False,
        style_gate: StyleGateKind = "scalar",
    ) -> None:
        """Build it.

        Args:
            channels: Channels of a latent.
            style_dim: Size of a style embedding; None where there are none.
            alpha_init: Weight of the past at the start, between 0 and 1. 0.2 to 0.5 is safe.
            learnable_alpha: Whether alpha is learnt.
            gate: `scalar`: one alpha for all cells. `spatial`: a small network on how far the frames differ beyond
                their noise gives a map. `kalman`: the same by a rule, without weights (a recursive filter whose process
                noise is what the residual shows beyond the flicker).
            flow_direction: What `flow` in `forward` is. `prev_to_cur` is turned round before sampling. `cur_to_prev`,
                what RAFT(cur, prev) or OpenCV's DIS.calc(cur, prev) give, is sampled directly: exact, and cheaper.
            compat: `seed`: the literal formulas of the first specification (see `warp_seed`), nothing masked.
            inverse: How flow from previous to current is turned round; see `invert_flow`.
            interpolation: How the past is sampled. `bicubic` keeps more detail when that is repeated, `spline` most.
            occlusion: What streams do with cells that a forward-backward check of the flow calls occluded. `mask` takes
                them from the current frame. `weigh` leaves them to the gate, which sees from the residual what fits:
                such a check errs on the side of caution. Cuts are found by it in either case; a scalar gate masks.
            refiner: `plain`: a small convolutional network on the moved latent. `flow`: it also sees how far between
                cells was sampled; for latents of patches. `none`.
            predict_flow: With `flow=None`, predict it from the two latents; otherwise `flow=None` moves nothing.
            style_gate: `scalar`: one weight for styles. `learned`: a weight for each of their numbers.

        Raises:
            ConfigError: A value that is not possible, or settings that exclude each other.
        """
        super().__init__()
        if channels < 1:
            raise ConfigError(f"channels must be at least 1, got {channels}")
        if not 0 < alpha_init < 1:
            raise ConfigError(f"alpha_init must be between 0 and 1, both excluded, got {alpha_init}")
        for name, value, known in (
            ("gate", gate, ("scalar", "spatial", "kalman")),
            ("flow_direction", flow_direction, ("prev_to_cur", "cur_to_prev")),
            ("inverse", inverse, ("fixed_point", "negate", "splat")),
            ("interpolation", interpolation, ("bilinear", "bicubic", "spline")),
            ("occlusion", occlusion, ("mask", "weigh")),
            ("refiner", refiner, ("plain", "flow", "none")),
            ("style_gate", style_gate, ("scalar", "learned")),
            ("compat", compat, (None, "seed")),
        ):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
        if compat == "seed" and (gate != "scalar" or predict_flow or refiner == "flow"):
            raise ConfigError("compat 'seed' has a scalar gate, a plain refiner and no flow predictor; drop the others")
        self.channels, self.compat = channels, compat
        self.flow_direction, self.inverse, self.interpolation = flow_direction, inverse, interpolation
        self.masks_occluded = occlusion == "mask" or gate == "scalar"
        logit = torch.logit(torch.tensor(alpha_init, dtype=torch.float64)).float()
        if learnable_alpha and gate != "kalman":
            self.alpha_param = nn.Parameter(logit)
        else:
            self.register_buffer("alpha_param", logit)
        self.register_buffer("alpha_override", torch.tensor(_NOT_SET))
        self.refiner = None if refiner == "none" else Refiner(channels, kind=refiner)
        gates = {"spatial": SpatialGate, "kalman": KalmanGate}
        self.gate: SpatialGate | KalmanGate | None = gates[gate]() if gate in gates else None
        self.predictor = FlowPredictor(channels) if predict_flow else None
        self.style = (
            None
            if style_dim is None
            else StyleFusion(style_dim, alpha_init=alpha_init, learnable=learnable_alpha, kind=style_gate)
        )

    @property
    def alpha(self) -> Float[Tensor, ""]:
        """The scalar alpha, or what replaces it."""
        learnt = torch.sigmoid(self.alpha_param)
        return learnt if self.gate is not None else torch.where(self._overridden, self.alpha_override, learnt)

    @property
    def _overridden(self) -> Bool[Tensor, ""]:
        return self.alpha_override >= 0

    def override_alpha(self, value: float | None) -> None:
        """Replace alpha (or bound the map of a gate) without touching `alpha_param`.

        Args:
            value: From 0, which gives the current frame to the bit, to 1; None lifts it.

        Raises:
            ConfigError: Outside of [0, 1].
        """
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"alpha must be between 0 and 1, got {value}")
        self.alpha_override.fill_(_NOT_SET if value is None else value)

    def forward(  # noqa: PLR0913 - the documented interface, and by name what a state needs
        self,
        z_prev: Float[Tensor, "batch channel y x"],
        z_cur: Float[Tensor, "batch channel y x"],
        s_prev: Float[Tensor, "batch style"] | None = None,
        s_cur: Float[Tensor, "batch style"] | None = None,
        flow: Float[Tensor, "batch 2 rows columns"] | None = None,
        *,
        variance: Float[Tensor, "batch 1 y x"] | None = None,
        valid: Bool[Tensor, "batch 1 y x"] | None = None,
        noise: Float[Tensor, "batch channel"] | None = None,
        return_warp: bool = False,
    ) -> tuple[Float[Tensor, "batch channel y x"], Float[Tensor, "batch style"] | None, dict[str, Any]]:
        """Fuse two latents, and two styles.

        Args:
            z_prev: Latent of the previous frame.
            z_cur: Latent of the current frame.
            s_prev: Style of the previous frame.
            s_cur: Style of the current frame.
            flow: Pixel offsets (dx, dy) in cells of the latents, as `flow_direction` says: by default from the previous
                frame to the current one. None moves nothing, or predicts it.
            variance: Of `z_prev` in units of the noise of one frame, where it has been fused before; None is 1, a plain
                frame.
            valid: False where the previous frame says nothing about the current one (occluded), on the grid of the
                current frame.
            noise: Variance of the flicker by channel, for the gates `spatial` and `kalman`; None estimates it from what
                is left after warping.
            return_warp: Put `z_warp` and `z_warp_refined` into `aux`.

        Returns:
            `z_fused`; `s_fused`, None unless both styles came; `aux` with `alpha` ([] or [batch, 1, y, x]),
            `z_warp_refined_mean`, `valid` and `variance` (see `Fusion`), all detached.

        Raises:
            DataError: Shapes that do not belong together.
        """
        self._check(z_prev, z_cur, flow)
        if self.compat == "seed":
            fusion = self._fuse_seed(z_prev, z_cur, flow)
        else:
            backward, seen = self._backward(flow)
            seen = valid if seen is None else seen if valid is None else seen & valid
            fusion = self.fuse(z_prev, z_cur, backward, variance=variance, valid=seen, noise=noise)
        aux: dict[str, Any] = {
            "alpha": fusion.alpha.detach(),
            "z_warp_refined_mean": fusion.z_warp_refined.detach().mean(),
            "valid": fusion.valid,
            "variance": fusion.variance.detach(),
        }
        if return_warp:
            aux |= {"z_warp": fusion.z_warp, "z_warp_refined": fusion.z_warp_refined}
        return fusion.z, self.fuse_styles(s_prev, s_cur), aux

    def warp_latent(
        self, z: Float[Tensor, "batch channel y x"], flow: Float[Tensor, "batch 2 rows columns"]
    ) -> Float[Tensor, "batch channel y x"]:
        """Move a latent by a flow, read as `flow_direction` says; see `forward`. Cells from outside repeat the border.

        With `compat="seed"` it is `warp_seed`.
        """
        self._check(z, z, flow)
        if self.compat == "seed":
            return warp_seed(z, flow)
        backward, _ = self._backward(flow)
        assert backward is not None
        return warp(z, backward, mode=self.interpolation)

    def fuse(
        self,
        z_prev: Float[Tensor, "batch channel y x"],
        z_cur: Float[Tensor, "batch channel y x"],
        backward: Float[Tensor, "batch 2 y x"] | None,
        *,
        variance: Float[Tensor, "batch 1 y x"] | None = None,
        valid: Bool[Tensor, "batch 1 y x"] | None = None,
        noise: Float[Tensor, "batch channel"] | None = None,
    ) -> Fusion:
        """Fuse a state of known variance with a frame; what `forward` and the streams are made of.

        Args:
            z_prev: The state; NaN where it is not known.
            z_cur: The frame; NaN where it is missing: the state alone answers there.
            backward: Flow from the current frame to the previous one, whatever `flow_direction` says.
            variance: Of the state, in units of the noise of one frame; None is 1, a plain frame.
            valid: Where the state says something, on the grid of the current frame.
            noise: As in `forward`.
        """
        if backward is None and self.predictor is not None:
            backward = self.predictor(z_prev.nan_to_num(0.0, 0.0, 0.0), z_cur.nan_to_num(0.0, 0.0, 0.0))
        if variance is None:
            variance = z_cur.new_ones(len(z_cur), 1, *z_cur.shape[2:], dtype=torch.float32)
        z_prev, variance, seen, known = self._move(z_prev, variance, z_cur, backward)
        if valid is not None:
            seen = seen & valid
        variance = torch.where(seen, variance, 1.0)
        moved = z_prev if backward is None else warp(z_prev, backward, mode=self.interpolation)
        current = z_cur if known is None else torch.where(known, z_cur, moved)
        z_warp = torch.where(seen, moved, current)
        refined = self._refine(z_warp, z_prev, current, backward, seen)
        if known is not None:
            current = torch.where(known, z_cur, refined)
        gain, alpha = self._gain(refined, current, variance, seen, noise)
        fused, after = torch.lerp(current, refined, alpha.to(current.dtype)), gain.variance
        if known is not None:
            fused = torch.where(known | seen, fused, torch.nan)
            after = torch.where(known.all(dim=1, keepdim=True), after, torch.where(seen, variance, 1.0))
        return Fusion(
            z=fused,
            alpha=alpha,
            variance=after,
            prior=variance,
            valid=seen,
            z_warp=z_warp,
            z_warp_refined=refined,
            flow=backward,
        )

    def moved(
        self,
        z_prev: Float[Tensor, "batch channel y x"],
        z_cur: Float[Tensor, "batch channel y x"],
        backward: Float[Tensor, "batch 2 y x"] | None,
        valid: Bool[Tensor, "batch 1 y x"],
    ) -> Float[Tensor, "batch channel y x"]:
        """Move and refine a finite latent as `fuse` does, without fusing: `z_warp_refined`.

        Args:
            z_prev: The latent.
            z_cur: What is taken where it says nothing.
            backward: Flow from the current frame to the previous one.
            valid: Where it says something.
        """
        moved = z_prev if backward is None else warp(z_prev, backward, mode=self.interpolation)
        return self._refine(torch.where(valid, moved, z_cur), z_prev, z_cur, backward, valid)

    def _refine(self, z_warp: Tensor, z_prev: Tensor, current: Tensor, backward: Tensor | None, seen: Tensor) -> Tensor:
        if self.refiner is None:
            return z_warp
        still = backward if backward is not None else z_warp.new_zeros(len(z_warp), 2, *z_warp.shape[2:])
        return torch.where(seen, self.refiner(z_warp, z_prev, still), current)

    def fuse_styles(
        self, s_prev: Float[Tensor, "batch style"] | None, s_cur: Float[Tensor, "batch style"] | None
    ) -> Float[Tensor, "batch style"] | None:
        """Mix two styles; None unless both came.

        Raises:
            DataError: Styles of another size than `style_dim`, or none were expected.
        """
        if s_prev is None or s_cur is None:
            return None
        if self.style is None:
            raise DataError(
                f"this module has no styles, got some of size {s_cur.shape[-1]}; build it with "
                f"style_dim={s_cur.shape[-1]}"
            )
        mixed: Tensor = self.style(s_prev, s_cur)
        return mixed

    def _move(
        self, z_prev: Tensor, variance: Tensor, z_cur: Tensor, backward: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the state without NaN, its moved variance, where it may be seen, and where the frame is known.

        The last is None if it is known everywhere, which costs nothing then.
        """
        seen = torch.ones_like(variance, dtype=torch.bool) if backward is None else inside(backward, margin=CELL_MARGIN)
        whole = variance if backward is None else warp(variance, backward)
        exporting = torch.compiler.is_exporting()  # a graph cannot ask
        if exporting or not _all_finite(z_prev):
            there = torch.isfinite(z_prev).all(dim=1, keepdim=True)
            z_prev = torch.where(there, z_prev, torch.zeros((), dtype=z_prev.dtype, device=z_prev.device))
            share = there.float() if backward is None else warp(there.float(), backward, mode=self.interpolation)
            seen = seen & (share > _WHOLE) & (share < 2 - _WHOLE)
        known = torch.isfinite(z_cur) if exporting or not _all_finite(z_cur) else None
        return z_prev, whole, seen, known

    def _gain(
        self, refined: Tensor, current: Tensor, variance: Tensor, seen: Tensor, noise: Tensor | None
    ) -> tuple[Gain, Tensor]:
        if self.gate is None and noise is None:
            noise = refined.new_ones(refined.shape[:2], dtype=torch.float32)  # one alpha for all does not look at it
        elif noise is None:
            noise = noise_of(refined, current, variance, seen)
        evidence = Evidence(
            warped=refined.float(),
            current=current.float(),
            variance=variance,
            valid=seen,
            noise=noise.float().clamp(min=_LEAST_NOISE),
        )
        if self.gate is None:
            return constant_gain(evidence, self.alpha), self.alpha
        gain = self.gate(evidence, self.alpha_param) if isinstance(self.gate, SpatialGate) else self.gate(evidence)
        alpha = torch.where(self._overridden, torch.minimum(gain.alpha, self.alpha_override), gain.alpha)
        return gain, alpha

    def _fuse_seed(self, z_prev: Tensor, z_cur: Tensor, flow: Tensor | None) -> Fusion:
        z_warp = z_prev if flow is None else warp_seed(z_prev, flow)
        refined = z_warp if self.refiner is None else self.refiner(z_warp, z_prev, torch.zeros_like(z_cur[:, :2]))
        ones = z_cur.new_ones(len(z_cur), 1, *z_cur.shape[2:], dtype=torch.float32)
        alpha = self.alpha.to(z_cur.dtype)
        return Fusion(
            z=alpha * refined + (1.0 - alpha) * z_cur,
            alpha=self.alpha,
            variance=ones,
            prior=ones,
            valid=ones.bool(),
            z_warp=z_warp,
            z_warp_refined=refined,
            flow=flow,
        )

    def _backward(self, flow: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Turn a flow as `forward` takes it into one from current to previous, and say where there is one."""
        if flow is None or self.flow_direction == "cur_to_prev":
            return flow, None
        return invert_flow(flow, method=self.inverse)

    def _check(self, z_prev: Tensor, z_cur: Tensor, flow: Tensor | None) -> None:
        if z_cur.ndim != 4 or z_cur.shape[1] != self.channels or z_prev.shape != z_cur.shape:
            raise DataError(
                f"latents must be [B,{self.channels},H,W], two of one shape, got {list(z_prev.shape)} and "
                f"{list(z_cur.shape)}"
            )
        expected = (z_cur.shape[0], 2, *z_cur.shape[2:])  # len() would fix the number of samples of a graph
        if flow is not None and tuple(flow.shape) != expected:
            raise DataError(
                f"flow must be {list(expected)}, (dx, dy) in cells of the latent, got {list(flow.shape)}; "
                f"rescale_flow(flow, {tuple(z_cur.shape[2:])}) brings one of images to the latent's grid"
            )


def _all_finite(values: Tensor) -> bool:
    """Whether there is no NaN and no infinity; a sum that is finite has seen none, and is quicker than a mask."""
    if bool(torch.isfinite(values.detach().sum(dtype=torch.float32))):
        return True
    return bool(torch.isfinite(values.detach()).all())
