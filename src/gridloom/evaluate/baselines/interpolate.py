"""A straight line between the observations before and after."""

import numpy as np
import xarray as xr
from jaxtyping import Float64

from gridloom.evaluate.baselines.answer import answer_each, fill_rest, global_means
from gridloom.evaluate.baselines.time_axis import along_time, next_known, previous_known, take

__all__ = ["LinearInTime", "line_in_time"]


class LinearInTime:
    """Interpolates each cell linearly between its last observation before and its first after.

    With observations on one side only it takes the nearest; a cell that was never observed takes the mean of all that
    is given. Distances are those of the time coordinate, so that uneven steps are respected.
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
            def line(values: np.ndarray, times: np.ndarray) -> np.ndarray:
                return fill_rest(line_in_time(values, times), means[name])

            return along_time(given, wanted, name, self.time_dim, line)

        return answer_each(wanted, answer)


def line_in_time(
    values: Float64[np.ndarray, "time *cells"], times: Float64[np.ndarray, " time"]
) -> Float64[np.ndarray, "time *cells"]:
    """Line between the neighbors in time; the one neighbor where there is only one; NaN where there is none."""
    previous, following = previous_known(values), next_known(values)
    before, after = take(values, previous), take(values, following)
    here = times.reshape(-1, *(1,) * (values.ndim - 1))
    start, end = times[np.maximum(previous, 0)], times[np.maximum(following, 0)]
    both = (previous >= 0) & (following >= 0)
    share = np.divide(here - start, end - start, out=np.zeros(values.shape), where=both)
    return fill_rest(np.where(both, before + share * (after - before), np.nan), before, after)
