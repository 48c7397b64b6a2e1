"""The energy model as the specification's listing has it, word for word: what the benchmarks compare with.

The CNN runs inside every call of the energy, the candidates are concatenated with the features of their image, the
residual block computes a first convolution whose result it does not use.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ListedEBM", "listed_minimize"]


def _coordinates(height: int, width: int) -> Tensor:
    rows = 2.0 * torch.arange(height) / (height - 1.0) - 1.0
    columns = 2.0 * torch.arange(width) / (width - 1.0) - 1.0
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


class ListedBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Both convolutions, the second one on the input."""
        out = F.relu(x)
        out = self.conv1(out)
        out = F.relu(x)  # as listed: what conv1 made is gone
        return self.conv2(out) + x


class ListedEBM(nn.Module):
    """E(x, y) of [B, 3, H, W] and [B, N, 2], as listed; 66,001 parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((5, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(before, after, 3, padding=1), ListedBlock(after)]
        self.cnn = nn.Sequential(*layers)
        self.conv = nn.Conv2d(32, 16, 1)
        self.mlp = nn.Sequential(nn.Linear(34, 256), nn.ReLU(), nn.Linear(256, 1))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Run the CNN, concatenate, run the network."""
        batch, _, height, width = x.shape
        grid = _coordinates(height, width).to(x)
        out = torch.cat([grid.expand(batch, -1, -1, -1), x], dim=1)
        out = F.relu(self.conv(F.relu(self.cnn(out))))
        softmax = F.softmax(out.reshape(batch * 16, height * width), dim=-1)
        rows, columns = grid[0].flatten(), grid[1].flatten()
        out = torch.stack([(softmax * rows).sum(1), (softmax * columns).sum(1)], dim=1).view(batch, 32)
        fused = torch.cat([out.unsqueeze(1).expand(-1, y.size(1), -1), y], dim=-1)
        return self.mlp(fused.reshape(-1, 34)).view(batch, y.size(1))

    def public_names(self) -> dict[str, Tensor]:
        """Weights under the names of the public version."""
        return {
            name.replace("cnn.", "cnn.net.").replace("mlp.", "mlp.net."): v for name, v in self.state_dict().items()
        }


@torch.no_grad()
def listed_minimize(
    model: nn.Module,
    x: Tensor,
    *,
    samples: int = 16384,
    iterations: int = 3,
    noise_scale: float = 0.33,
    noise_shrink: float = 0.5,
    recorded: tuple[Tensor, list[Tensor], list[Tensor]] | None = None,
) -> Tensor:
    """The derivative-free optimizer as listed; with recorded samples, indices and noise where they are given."""
    y = recorded[0] if recorded else torch.rand(len(x), samples, 2) * 2 - 1
    for i in range(iterations):
        energies = model(x, y)
        probabilities = F.softmax(-1.0 * energies, dim=-1)
        indices = torch.multinomial(probabilities, y.shape[1], replacement=True)
        noise = torch.randn_like(y)
        if recorded:
            indices, noise = recorded[1][i], recorded[2][i]
        y = y[torch.arange(len(y)).unsqueeze(-1), indices]
        y = (y + noise * noise_scale).clamp(-1, 1)
        noise_scale *= noise_shrink
    energies = model(x, y)
    return y[torch.arange(len(y)), energies.argmin(dim=-1)]
