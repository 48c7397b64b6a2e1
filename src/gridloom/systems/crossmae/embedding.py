"""Where a token is: its place in the window, its time in the window, and what is known of both."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from gridloom.nn.position import sine_cosine, sine_cosine_2d

__all__ = ["PositionEmbedding"]


class PositionEmbedding(nn.Module):
    """Learnt places (starting at sines and cosines) plus times in sines and cosines, plus linear features of both.

    Args:
        layout: Rows and columns of the places.
        dim: Width, a multiple of 4.
        time_features: Numbers known of each time (season); 0 for none.
        place_features: Numbers known of each place (latitude, longitude); 0 for none.
    """

    def __init__(self, layout: tuple[int, int], dim: int, *, time_features: int = 0, place_features: int = 0) -> None:
        super().__init__()
        self.num_places = layout[0] * layout[1]
        self.spatial = nn.Parameter(sine_cosine_2d(*layout, dim))
        self.of_time = nn.Linear(time_features, dim) if time_features else None
        self.of_place = nn.Linear(place_features, dim) if place_features else None

    def forward(
        self,
        positions: Int64[Tensor, "batch tokens"],
        num_times: int,
        time_features: Float[Tensor, "batch times time_features"] | None = None,
        place_features: Float[Tensor, "batch places place_features"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Embed positions time * places + place."""
        times, places = positions // self.num_places, positions % self.num_places
        steps = torch.arange(num_times, dtype=torch.float32, device=positions.device)
        temporal = sine_cosine(steps, self.spatial.shape[1]).to(self.spatial.dtype)
        embedded = nn.functional.embedding(places, self.spatial) + nn.functional.embedding(times, temporal)
        for layer, features, chosen in (
            (self.of_time, time_features, times),
            (self.of_place, place_features, places),
        ):
            if layer is not None and features is not None:
                known = layer(features)
                embedded = embedded + torch.take_along_dim(known, chosen[..., None], dim=1)
        return embedded
