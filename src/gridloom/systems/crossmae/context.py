"""What a network is told beside the values themselves."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Context"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is known beside the values.

    Attributes:
        times: Numbers of each time of tokens, [batch, times, features].
        places: Numbers of each place of tokens, [batch, places, features].
        known: Further channels, the shape of the values with the channels last; 0 where not known.
    """

    times: Tensor | None = None
    places: Tensor | None = None
    known: Tensor | None = None
