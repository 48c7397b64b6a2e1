"""Using a trained model: where, how certain, and where else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from gridloom.core.batch import Field
from gridloom.core.errors import DataError
from gridloom.core.system import Trained
from gridloom.grid.normalize import Normalizer
from gridloom.systems.energy.config import EnergyConfig
from gridloom.systems.energy.data import IMAGE, POSITION, from_unit, unit_of
from gridloom.systems.energy.model import ConvMLP
from gridloom.systems.energy.objective import Location
from gridloom.systems.energy.search import EnergyModel, FromFeatures, PatternSearch, lattice

__all__ = ["Located", "Locator", "spread"]

_AT_ONCE = 16
_LEVELS = 6
_POINTS = {1: 129, 2: 33, 3: 13}
_SHRINK = 4.0
SECOND_WITHIN = 5.0
"""A second minimum counts if its energy is at most so much above the first: e^-5 = 0.7 % of its density."""
_APART = 0.1


@dataclass(frozen=True, kw_only=True)
class Located:
    """Answers in the model's own coordinates, from -1 to 1.

    Attributes:
        best: The minimum of the energy, or the regression's answer.
        energy: Its energy; NaN for a regression.
        spread: Standard deviation of exp(-E) around its mean, for each coordinate; NaN where it is not known.
        second: The next minimum, where there is one; NaN elsewhere.
        second_energy: Its energy; NaN where there is none.
    """

    best: Float[Tensor, "batch outputs"]
    energy: Float[Tensor, " batch"]
    spread: Float[Tensor, "batch outputs"]
    second: Float[Tensor, "batch outputs"]
    second_energy: Float[Tensor, " batch"]


class Locator:
    """A trained model as a predictor, and as what `gridloom locate` asks."""

    def __init__(self, trained: Trained[EnergyConfig]) -> None:
        objective = trained.objective
        assert isinstance(objective, Location)
        self.objective, self.config = objective.eval(), trained.config
        self.normalizer = Normalizer.from_json(trained.normalizer)

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer `position` (sample, coordinate) for the images of `given`, in the coordinates' own units."""
        best = [self.answer(part) for part in self._parts(given[IMAGE].values)]
        answers = from_unit(torch.cat(best).cpu().numpy(), self.config.data.bounds)
        position = (wanted[POSITION].dims, answers, {"units": unit_of(self.config.data)})
        return xr.Dataset({POSITION: position}, coords=wanted.coords)

    def normalize(self, images: np.ndarray) -> np.ndarray:
        """Images [N, C, H, W] or signals [N, L] in data units to what the model takes.

        Raises:
            DataError: Another number of axes or channels.
        """
        if self.config.data.is_signal:
            if images.ndim != 2:
                raise DataError(f"expected signals [N, {self.config.data.size[1]}], got {list(images.shape)}")
            return images.astype(np.float32)
        channels = self.normalizer.variables
        if images.ndim != 4 or images.shape[1] != len(channels):
            raise DataError(
                f"expected images [N, {len(channels)}, H, W] with channels {', '.join(channels)}, "
                f"got {list(images.shape)}"
            )
        return np.stack([self.normalizer.apply(name, images[:, i]) for i, name in enumerate(channels)], axis=1)

    def _parts(self, images: np.ndarray) -> list[Field]:
        device = self.objective.half_range.device
        tensor = torch.from_numpy(self.normalize(images))
        if not self.config.model.mask_missing and not bool(torch.isfinite(tensor).all()):
            raise DataError("images have missing cells (NaN), this model was trained without; fill them first")
        return [Field.of(part.to(device)) for part in torch.split(tensor, _AT_ONCE)]

    @torch.no_grad()
    def features(self, image: Field) -> Tensor:
        """Features of normalized images; with `search.precision bf16` the convolutions run in bfloat16."""
        half = self.config.search.precision == "bf16"
        with torch.autocast(image.values.device.type, torch.bfloat16, enabled=half):
            return self.objective.features(image)

    def answer(self, image: Field) -> Float[Tensor, "batch outputs"]:
        """The model's answers from -1 to 1."""
        return self.objective.answer(self.features(image))

    def locate(self, images: np.ndarray) -> Located:
        """Answers with energy, spread and second minimum.

        Args:
            images: In data units, [N, C, H, W] or [N, L].
        """
        parts = [self._locate(self.features(part)) for part in self._parts(images)]
        names = ("best", "energy", "spread", "second", "second_energy")
        return Located(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    @torch.no_grad()
    def _locate(self, features: Tensor) -> Located:
        objective = self.objective
        best = objective.answer(features)
        nothing, nothings = torch.full_like(best[:, 0], torch.nan), torch.full_like(best, torch.nan)
        model = objective.model
        if isinstance(model, ConvMLP):
            return Located(best=best, energy=nothing, spread=nothings, second=nothings, second_energy=nothing)
        energy = model.energy(features, best[:, None])[:, 0]
        if best.shape[1] not in _POINTS:
            return Located(best=best, energy=energy, spread=nothings, second=nothings, second_energy=nothing)
        searched = FromFeatures(model)
        _, trajectory = PatternSearch(starts=8).minimize(searched, features, objective.bounds)
        places, energies = trajectory.minima, trajectory.minima_energies
        assert places is not None and energies is not None
        other = (places - best[:, None]).norm(dim=-1) > _APART
        close = other & (energies <= energy[:, None] + SECOND_WITHIN)
        ranked = torch.where(close, energies, torch.inf)
        lowest, place = ranked.min(dim=1)
        second = places[torch.arange(len(best)), place]
        found = lowest.isfinite()
        second = torch.where(found[:, None], second, nothings)
        return Located(
            best=best,
            energy=energy,
            spread=spread(searched, features, objective.bounds, [best, second]),
            second=second,
            second_energy=torch.where(found, lowest, nothing),
        )


@torch.no_grad()
def spread(
    ebm: EnergyModel,
    x: Tensor,
    bounds: Float[Tensor, "2 outputs"],
    minima: Sequence[Float[Tensor, "batch outputs"]],
) -> Float[Tensor, "batch outputs"]:
    """Standard deviation of p(y|x) = exp(-E) / Z for each coordinate, by quadrature on nested grids.

    A grid over the bounds sees a broad density; around each minimum grids of a quarter the size each replace what the
    coarser ones say there, so that a peak of a hundredth of a cell is measured too. A point counts by the share of its
    cell that no other grid speaks for.

    Args:
        ebm: The model.
        x: Images, batch first.
        bounds: Lower and upper end of each coordinate; up to three coordinates.
        minima: Places to look at closely; NaN where there is none.
    """
    features = ebm.encode(x)
    low, high = bounds
    outputs = bounds.shape[1]
    unit = lattice(_POINTS[outputs], bounds)
    half = (high - low) / 2
    steps = 2 * half / (_POINTS[outputs] - 1)
    first = ((low + high) / 2 + half * unit).expand(len(features), -1, -1)
    points, shares, levels = [first], [_share(first, steps, low, high)], [0]
    for level in range(1, _LEVELS):
        reach = half / _SHRINK**level
        for number, place in enumerate(minima):
            center = place[:, None]
            here = center + reach * unit
            step = steps / _SHRINK**level
            share = _share(here, step, torch.maximum(center - reach, low), torch.minimum(center + reach, high))
            for earlier in list(minima)[:number]:  # where two grids of a size overlap only the first counts
                share = share * (1 - _share(here, step, earlier[:, None] - reach, earlier[:, None] + reach))
            for old, coarse in enumerate(levels):
                if coarse < level:
                    taken = _share(points[old], steps / _SHRINK**coarse, center - reach, center + reach)
                    shares[old] = shares[old] * (1 - taken)
            points.append(torch.clamp(here, low, high).nan_to_num(0.0))
            shares.append(share)
            levels.append(level)
    y = torch.cat(points, dim=1)
    logs = [share.log() - level * outputs * float(np.log(_SHRINK)) for share, level in zip(shares, levels, strict=True)]
    weights = (torch.cat(logs, dim=1) - ebm.energy(features, y)).softmax(1)[..., None]
    mean = (weights * y).sum(1, keepdim=True)
    return (weights * (y - mean).square()).sum(1).sqrt()


def _share(y: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Share of the cell of `step` around each point [B, N, outputs] that lies in a box; 0 for a box that is NaN."""
    overlap = torch.minimum(y + step / 2, high) - torch.maximum(y - step / 2, low)
    return (overlap / step).clamp(0, 1).prod(-1).nan_to_num(0.0)
