"""Tomorrow is like today."""

import numpy as np
import xarray as xr

from gridloom.evaluate.baselines.answer import answer_each, fill_rest, global_means
from gridloom.evaluate.baselines.time_axis import along_time, next_known, previous_known, take

__all__ = ["Persistence"]


class Persistence:
    """Answers with the last value that was observed before, at the same cell.

    A cell that was never observed before takes its first value after, then the mean of all that is given.
    """

    def __init__(self, time_dim: str = "time") -> None:
        """Choose the dimension of time.

        Args:
            time_dim: Its name. Where it is a coordinate, `given` and `wanted` may cover different ranges of it.
        """
        self.time_dim = time_dim

    def predict(self, given: xr.Dataset, wanted: xr.Dataset) -> xr.Dataset:
        """Answer every cell of `wanted`."""
        means = global_means(given)

        def answer(name: str) -> xr.DataArray:
            def last(values: np.ndarray, _: np.ndarray) -> np.ndarray:
                before, after = take(values, previous_known(values)), take(values, next_known(values))
                return fill_rest(before, after, means[name])

            return along_time(given, wanted, name, self.time_dim, last)

        return answer_each(wanted, answer)
