import numpy as np
import pytest

from gridloom.core.errors import DataError
from gridloom.grid.splits import decorrelation_length
from gridloom.grid.synthetic import waves


def test_waves_are_the_same_for_a_seed_and_differ_between_seeds():
    assert waves(num_times=4).identical(waves(num_times=4))
    assert not waves(num_times=4).equals(waves(num_times=4, seed=1))


@pytest.mark.parametrize("missing", [0.0, 0.2, 0.7])
def test_each_frame_misses_its_share(missing):
    data = waves(num_times=5, height=20, width=30, missing=missing)
    for variable in data.data_vars.values():
        np.testing.assert_array_equal(np.isnan(variable.values).sum(axis=(1, 2)), round(missing * 600))


def test_fields_are_smooth_in_space_and_time_and_gaps_are_blobs():
    data = waves()
    for axis in range(3):
        assert decorrelation_length(data["temperature"].values, axis) >= 3
    hidden = np.isnan(data["temperature"].values)
    both = (hidden[:, :, 1:] & hidden[:, :, :-1]).mean()
    assert both > 3 * hidden.mean() ** 2


def test_one_variable_helps_to_fill_the_other_and_gaps_differ():
    data = waves(missing=0.0)
    correlation = np.corrcoef(data["temperature"].values.ravel(), data["salinity"].values.ravel())[0, 1]
    assert 0.4 < correlation < 0.95
    clouded = waves()
    assert (clouded["temperature"].isnull() != clouded["salinity"].isnull()).any()


@pytest.mark.parametrize("missing", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(missing):
    with pytest.raises(DataError, match="missing"):
        waves(missing=missing)
