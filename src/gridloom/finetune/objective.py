"""Loss of a label read from the embedding."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.batch import Batch, Step
from gridloom.core.contracts import Objective
from gridloom.finetune.backbone import build_encoder, frozen_modules
from gridloom.finetune.config import FinetuneConfig
from gridloom.finetune.data import TARGET

__all__ = ["FineTuning", "Head"]


class Head(nn.Module):
    """Reads a label from an embedding that is standardized by statistics of the training part.

    The last linear map starts at 0: the first answers are the same for all, and the first gradients that reach the
    encoder are those of a head that knows something.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__()
        features, hidden = config.pretrained.num_features, config.hidden
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        inner = [nn.Linear(features, hidden), nn.GELU()] if config.head == "mlp" else []
        last = nn.Linear(hidden if config.head == "mlp" else features, len(config.classes) or 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*inner, nn.Dropout(config.dropout), last)

    def forward(self, embedding: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        """Logits of the classes, or one number in units of the labels' spread around their mean."""
        read: Tensor = self.layers((embedding - self.center) * self.scale)
        return read


class FineTuning(Objective):
    """Cross-entropy of a class, or squared error of a number in units of the training labels' variance.

    Samples without a label have loss 0 and no gradient. Modules named in `freeze` keep weights and statistics to the
    bit: they stay in eval mode, whatever `train` says. The metric `error` is what is evaluated: 1 for a wrong class,
    or the absolute error in the label's own unit.
    """

    label_mean: Tensor
    label_spread: Tensor

    def __init__(self, config: FinetuneConfig) -> None:
        super().__init__()
        self.encoder = build_encoder(config)
        self.head = Head(config)
        self.is_regression = not config.classes
        self.register_buffer("label_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("label_spread", torch.ones((), dtype=torch.float64))
        self._frozen = frozen_modules(self.encoder, config.freeze)
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> "FineTuning":
        """Set the mode; what is frozen stays in eval mode, so that its statistics do not move."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(self, batch: Batch) -> Step:
        """Score what is read of each sample against the field `target`."""
        target = batch.fields[TARGET]
        read = self.head(self.encoder(batch)["embedding"]).float()
        if self.is_regression:
            wanted = ((target.values - self.label_mean) / self.label_spread).float()
            loss = (read[:, 0] - wanted).square()
            error = (self.numbers(read) - target.values).abs().float()
        else:
            loss = F.cross_entropy(read, target.values, reduction="none")
            error = (read.argmax(1) != target.values).float()
        nothing = torch.zeros((), device=loss.device)
        metrics = {"error": torch.where(target.valid, error.detach(), nothing)}
        return Step(loss=torch.where(target.valid, loss, nothing), metrics=metrics)

    def numbers(self, read: Float[Tensor, "batch 1"]) -> Float64[Tensor, " batch"]:
        """What the head says, in the label's unit."""
        return read[:, 0].double() * self.label_spread + self.label_mean
