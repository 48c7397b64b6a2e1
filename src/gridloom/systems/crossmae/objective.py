"""What crossmae learns from: hidden cells that were really observed.

Each modality's loss is the mean over the hidden, observed cells of the whole batch, over all processes: sums and counts
are added up before they are divided, so that ranks change nothing. (For a validation pass it is the mean of each
sample.) Cells that were never observed are neither seen nor scored.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gridloom.core.batch import Batch, Step
from gridloom.core.contracts import Objective
from gridloom.core.random import uniform
from gridloom.systems.crossmae.build import build_model, cut_of, share_of
from gridloom.systems.crossmae.config import CrossMAEConfig
from gridloom.systems.crossmae.decoder import Answer
from gridloom.systems.crossmae.inputs import Inputs, read_inputs
from gridloom.systems.crossmae.masking import choose_share, draw_masks, transplant
from gridloom.systems.crossmae.multimodal import MultiModalEncoder
from gridloom.systems.crossmae.tokens import take_rows

__all__ = ["Filled", "MaskedModeling"]

_LEAST_LOG_VARIANCE = -10.0
_FIRST_LOG_VARIANCE = -3.0
_LEAST_VARIANCE = 1e-6


class Filled(NamedTuple):
    """What the model says of the cells of one modality."""

    correction: Tensor
    """To be added to the background; the answer itself where there is none."""
    spread: Tensor | None
    """Standard deviation; None for a model without."""


class MaskedModeling(Objective):
    """The model with its masks and its loss, in normalized units; `calibrate` sets its buffers after training.

    Attributes:
        scale: Factor of the predicted standard deviation of each modality, found on validation cells.
        blend: Share of the model's correction that is added to the background, found on validation cells.
    """

    scale: Tensor
    blend: Tensor
    may_skip_parameters = True  # a modality that no sample of a batch has

    def __init__(self, config: CrossMAEConfig) -> None:
        super().__init__()
        self.config = config
        self.model = build_model(config)
        self.patches = {name: cut_of(config, name) for name in config.modalities}
        if config.background.kinds:
            self._start_from_background()
        self.register_buffer("scale", torch.ones(len(config.modalities)))
        self.register_buffer("blend", torch.ones(len(config.modalities)))

    def _start_from_background(self) -> None:
        """Begin without any correction, and with the variance that anomalies usually have beside a background."""
        for name, modality in self.config.modalities.items():
            if modality.kind == "image":
                decoder = self.model.decoder(name)
                nn.init.zeros_(decoder.head.weight)
                if decoder.spread:
                    nn.init.constant_(decoder.head.bias[decoder.patches.num_cells :], _FIRST_LOG_VARIANCE)

    @property
    def encoder(self) -> MultiModalEncoder:
        """The part that is extracted."""
        return self.model.encoder

    def forward(self, batch: Batch) -> Step:
        """Learn from every modality of the batch."""
        inputs = read_inputs(batch, self.patches)
        hidden, seen, targets, ask = self._hide(batch, inputs)
        answers = self.model(inputs.values, hidden, valid=seen, static=inputs.static, contexts=inputs.contexts, ask=ask)
        loss = torch.zeros(len(batch), device=batch.key.device)
        metrics = {}
        for name, answer in answers.items():
            sums, squares, counts = self._errors(name, answer, inputs, targets[name])
            loss = loss + self.config.modalities[name].weight * self._mean(sums, counts)
            metrics[f"rmse_{name}"] = torch.sqrt(squares.detach() / counts.clamp(min=1))
        return Step(loss=loss, metrics=metrics)

    @torch.inference_mode()
    def fill(self, batch: Batch, wanted: Mapping[str, Tensor]) -> dict[str, Filled]:
        """Predict cells that were never observed, or are asked for otherwise.

        Args:
            batch: What may be seen.
            wanted: Cells that are asked, by modality, shaped as its values.

        Returns:
            For each modality the correction (all of the answer where there is no background) and its standard
            deviation, shaped as the values, 0 where nothing was asked; in the units of the batch.
        """
        inputs = read_inputs(batch, self.patches)
        nothing = {name: torch.zeros_like(cells) for name, cells in inputs.has_data.items()}
        ask = {name: self.patches[name].cut(cells).any(-1) for name, cells in wanted.items()}
        answers = self.model(
            inputs.values, nothing, valid=inputs.visible, static=inputs.static, contexts=inputs.contexts, ask=ask
        )
        found = {}
        for name, answer in answers.items():
            shape = inputs.values[name].shape
            parts = [answer.mean.float()]
            if answer.log_variance is not None:
                parts.append(torch.exp(0.5 * answer.log_variance.float().clamp(min=_LEAST_LOG_VARIANCE)))
            patches, times = self.patches[name], ask[name].shape[1]
            steps = shape[patches.time_axis + 1]
            placed = [self.model.decoder(name).place(answer.asked, part, times) for part in parts]
            joined = [patches.join(part, steps).reshape(shape) for part in placed]
            found[name] = Filled(joined[0], joined[1] if len(joined) > 1 else None)
        return found

    def _hide(self, batch: Batch, inputs: Inputs) -> tuple[dict, dict, dict, dict]:
        """Patches hidden from the encoder, cells it may see, cells to predict, and patches to predict."""
        if inputs.hidden is not None:  # the source has chosen cells
            hidden = {name: torch.zeros_like(cells) for name, cells in inputs.has_data.items()}
            seen = dict(inputs.visible)
            targets = {name: inputs.valid[name] & ~seen[name] for name in seen}
        else:
            hidden, seen, targets = self._mask(batch, inputs)
        ask = {name: self.patches[name].cut(cells).any(-1) for name, cells in targets.items()}
        predict = self.config.masking.predict
        if predict < 1 and self.training:
            for name, patches_asked in ask.items():
                one = 1.0 / patches_asked.flatten(1).sum(1).clamp(min=1)  # never none of those that there are
                ranks = uniform(batch.key, tuple(patches_asked.shape[1:]), f"{name}.predict")
                ask[name] = choose_share(ranks, patches_asked, one.clamp(min=predict))
        return hidden, seen, targets, ask

    def _mask(self, batch: Batch, inputs: Inputs) -> tuple[dict, dict, dict]:
        """Hide patches by the strategies, and single cells; what is no target stays visible."""
        masking, key = self.config.masking, batch.key
        shares = {name: share_of(self.config, name) for name, one in self.config.modalities.items() if one.target}
        layouts = {name: patches.layout for name, patches in self.patches.items()}
        hidden, drawn = draw_masks(key, inputs.has_data, layouts, shares, masking.strategies, alpha=masking.alpha)
        seen, targets = {}, {}
        for name, patches in self.patches.items():
            valid, time_axis = inputs.valid[name], patches.time_axis
            alone = torch.zeros_like(valid)  # cells that are hidden by themselves
            if name in shares and "gaps" in masking.strategies:
                chosen = drawn == masking.strategies.index("gaps")
                hidden[name] = hidden[name] & ~chosen[:, None, None]
                alone = transplant(key, valid, name, time_axis=time_axis)
                alone = alone & chosen.reshape(-1, *(1,) * (valid.ndim - 1))
            if name in shares and masking.cells:
                alone = alone | (valid & (uniform(key, tuple(valid.shape[1:]), f"{name}.cells") < masking.cells))
            cells = hidden[name][..., None].expand(-1, -1, -1, patches.num_cells)
            covered = patches.join(cells, valid.shape[time_axis + 1]).reshape(valid.shape)
            seen[name] = valid & ~alone
            targets[name] = valid & (covered | alone)
        return hidden, seen, targets

    def _errors(self, name: str, answer: Answer, inputs: Inputs, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sum of the loss, sum of squared errors and number of cells, for each sample.

        Where a share of the patches is asked, they stand for all: the sums grow by one over that share.
        """
        patches, asked = self.patches[name], answer.asked
        every = patches.cut(targets).flatten(1, 2)
        grown = every.any(-1).sum(1) / (~asked.mask()).sum(1).clamp(min=1)
        wanted = take_rows(every, asked.positions)
        if asked.padding is not None:
            wanted = wanted & ~asked.padding[..., None]
        truth = take_rows(patches.cut(inputs.values[name]).flatten(1, 2), asked.positions)
        known = inputs.contexts[name].known
        if known is not None:
            truth = truth - take_rows(patches.cut(known[..., 0]).flatten(1, 2), asked.positions)
        if self.config.loss.normalize_patches:
            truth = _normalized(truth, wanted)
        mean = answer.mean.float()
        squared = torch.where(wanted, mean - truth, torch.zeros((), device=mean.device)).square()
        if answer.log_variance is None:
            error = squared
        else:
            log_variance = answer.log_variance.float().clamp(min=_LEAST_LOG_VARIANCE)
            likelihood = 0.5 * (log_variance + squared * torch.exp(-log_variance))
            error = torch.where(wanted, likelihood, torch.zeros((), device=mean.device))
        return grown * error.flatten(1).sum(1), grown * squared.flatten(1).sum(1), every.flatten(1).sum(1)

    def _mean(self, sums: Tensor, counts: Tensor) -> Tensor:
        """Each sample's part in the mean over the batch, times the number of samples."""
        if not self.training:
            return sums / counts.clamp(min=1)
        total = torch.stack([counts.sum(), torch.full_like(counts.sum(), len(counts))])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        return sums * (total[1] / total[0].clamp(min=1))


def _normalized(truth: Tensor, wanted: Tensor) -> Tensor:
    """Zero mean and unit (unbiased) variance over the wanted cells of each patch."""
    count = wanted.sum(-1, keepdim=True)
    zero = torch.zeros((), device=truth.device)
    mean = torch.where(wanted, truth, zero).sum(-1, keepdim=True) / count.clamp(min=1)
    variance = torch.where(wanted, truth - mean, zero).square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    return (truth - mean) / torch.sqrt(variance + _LEAST_VARIANCE)
