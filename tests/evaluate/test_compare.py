"""Scores of answers."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.evaluate.compare import compare, judge, verdict


def make_task(size=40, cells=6, *, units=("degC", "degC")):
    generator = np.random.default_rng(0)
    truth = xr.Dataset(
        {
            name: (("time", "x"), generator.normal(size=(size, cells)).astype("float32"), {"units": unit})
            for name, unit in zip(("sst", "air"), units, strict=True)
        },
        coords={"time": np.arange(size), "x": np.arange(cells)},
    )
    truth["sst"][3, 2] = np.nan
    wanted = xr.Dataset({name: (("time", "x"), generator.random((size, cells)) < 0.5) for name in truth}, truth.coords)
    return Task(name="sea", split="test", given=truth.where(~wanted), wanted=wanted, truth=truth, block_dim="time")


def noisy(task, scale, seed=1):
    generator = np.random.default_rng(seed)
    return task.truth.fillna(99.0) + xr.Dataset(
        {name: (("time", "x"), scale * generator.normal(size=task.truth[name].shape)) for name in task.truth}
    )


def find(scores, method, metric, group):
    (score,) = [s for s in scores if (s.method, s.metric, s.group) == (method, metric, group)]
    return score


def test_scores_equal_a_slow_reference():
    task = make_task()
    answers = {"reference": noisy(task, 1.0), "model": noisy(task, 0.5, seed=2)}
    scores = compare(task, answers, 7)
    errors = {"reference": [], "model": []}
    for method, answer in answers.items():
        for time in range(40):
            for x in range(6):
                truth = float(task.truth["sst"][time, x])
                if bool(task.wanted["sst"][time, x]) and np.isfinite(truth):
                    errors[method].append(float(answer["sst"][time, x]) - truth)
    errors = {method: np.array(values) for method, values in errors.items()}
    for method, error in errors.items():
        assert find(scores, method, "rmse", "sst").value == pytest.approx(np.sqrt(np.mean(error**2)))
        assert find(scores, method, "mae", "sst").value == pytest.approx(np.mean(np.abs(error)))
        assert find(scores, method, "bias", "sst").value == pytest.approx(np.mean(error))
    skill = 1 - np.mean(errors["model"] ** 2) / np.mean(errors["reference"] ** 2)
    assert find(scores, "model", "skill", "sst").value == pytest.approx(skill)
    assert {(s.data, s.split, s.seed, s.num_blocks) for s in scores} == {("sea", "test", 7, 20)}


def test_all_pools_cells_of_one_unit_and_averages_skill_over_variables():
    task = make_task()
    scores = compare(task, {"reference": noisy(task, 1.0), "model": noisy(task, 0.5, seed=2)}, 0)
    counts = {name: int((task.wanted[name] & task.truth[name].notnull()).sum().item()) for name in task.truth.data_vars}
    squares = {name: find(scores, "model", "rmse", name).value ** 2 for name in counts}
    pooled = sum(counts[name] * squares[name] for name in counts) / sum(counts.values())
    assert find(scores, "model", "rmse", "all").value == pytest.approx(np.sqrt(pooled))
    mean = np.mean([find(scores, "model", "skill", name).value for name in counts])
    assert find(scores, "model", "skill", "all").value == pytest.approx(mean)
    assert find(scores, "model", "rmse", "all").unit == "degC"
    assert find(scores, "model", "skill", "all").unit == "1"


def test_variables_of_other_units_are_not_pooled():
    task = make_task(units=("degC", "m s-1"))
    scores = compare(task, {"reference": noisy(task, 1.0)}, 0)
    assert {s.metric for s in scores if s.group == "all"} == {"skill"}
    assert find(scores, "reference", "rmse", "air").unit == "m s-1"


def test_units_do_not_weigh_in_the_skill_of_all():
    task = make_task(units=("degC", "Pa"))
    answers = {"reference": noisy(task, 1.0), "model": noisy(task, 0.5, seed=2)}
    scale = {"sst": 1.0, "air": 1e5}

    def scaled(dataset):
        return dataset.map(lambda values: (values * scale[values.name]).assign_attrs(values.attrs))

    other = replace(task, truth=scaled(task.truth))
    before = find(compare(task, answers, 0), "model", "skill", "all")
    after = find(compare(other, {k: scaled(v) for k, v in answers.items()}, 0), "model", "skill", "all")
    assert (after.value, after.low, after.high) == pytest.approx((before.value, before.low, before.high))


def test_the_reference_has_skill_zero_and_can_be_named():
    task = make_task()
    answers = {"first": noisy(task, 1.0), "second": noisy(task, 0.5, seed=2)}
    assert find(compare(task, answers, 0), "first", "skill", "all").value == 0.0
    scores = compare(task, answers, 0, reference="second")
    assert find(scores, "second", "skill", "all").value == 0.0
    assert find(scores, "first", "skill", "all").value < -1.0
    with pytest.raises(UnknownNameError, match="did you mean 'second'"):
        compare(task, answers, 0, reference="secnd")


def test_values_where_nothing_is_asked_do_not_matter():
    task = make_task()
    answer = noisy(task, 1.0)
    garbled = answer.where(task.wanted, np.nan)
    assert compare(task, {"a": answer}, 0) == compare(task, {"a": garbled}, 0)


def test_a_wanted_cell_without_answer_is_an_error_that_counts_them():
    task = make_task()
    answer = noisy(task, 1.0)
    wanted = (task.wanted["air"]).values.nonzero()
    answer["air"].values[wanted[0][:3], wanted[1][:3]] = np.nan
    with pytest.raises(DataError, match=r"method 'gappy', variable 'air': 3 of \d+ wanted cells"):
        compare(task, {"good": noisy(task, 1.0), "gappy": answer}, 0)


def test_an_unanswered_cell_of_unknown_truth_is_no_error():
    task = make_task()
    task.wanted["sst"][3, 2] = True
    answer = noisy(task, 1.0)
    answer["sst"][3, 2] = np.nan
    assert find(compare(task, {"a": answer}, 0), "a", "rmse", "sst").value > 0


def test_answers_may_be_transposed_sampled_or_quantiles():
    task = make_task()
    answer = noisy(task, 1.0)
    plain = find(compare(task, {"a": answer}, 0), "a", "rmse", "all").value
    samples = xr.concat([answer + 1.0, answer - 1.0], "sample").transpose("x", "sample", "time")
    quantiles = xr.concat([answer - 1.0, answer, answer + 2.0], xr.Variable("quantile", [0.1, 0.5, 0.9]))
    assert find(compare(task, {"a": samples}, 0), "a", "rmse", "all").value == pytest.approx(plain)
    assert find(compare(task, {"a": quantiles}, 0), "a", "rmse", "all").value == pytest.approx(plain)
    with pytest.raises(DataError, match=r"quantile 0\.5"):
        compare(task, {"a": quantiles.isel(quantile=[0, 2])}, 0)


def test_shifted_coordinates_are_refused():
    task = make_task()
    shifted = noisy(task, 1.0).assign_coords(time=np.arange(40) + 1)
    with pytest.raises(DataError, match="coordinates differ"):
        compare(task, {"a": shifted}, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda task: replace(task, block_dim="lead"), "no dimension 'lead'"),
        (lambda task: replace(task, wanted=task.wanted & False), "nothing to score"),
        (lambda task: replace(task, truth=task.truth[["air"]]), "truth has only"),
    ],
)
def test_tasks_that_cannot_be_scored_say_why(change, message):
    task = make_task()
    with pytest.raises(DataError, match=message):
        compare(change(task), {"a": noisy(task, 1.0)}, 0)


def test_a_missing_variable_or_no_method_is_refused():
    task = make_task()
    with pytest.raises(DataError, match="method 'a': expected an answer for variable 'air'"):
        compare(task, {"a": noisy(task, 1.0)[["sst"]]}, 0)
    with pytest.raises(DataError, match="at least one method"):
        compare(task, {}, 0)


def test_blocks_cover_only_positions_where_something_counts():
    task = make_task()
    task = replace(task, wanted=task.wanted & (task.wanted["time"] >= 34))
    assert {score.num_blocks for score in compare(task, {"a": noisy(task, 1.0)}, 0)} == {6}


def test_scores_by_a_dimension_equal_scores_of_its_slices():
    task = make_task()
    answers = {"a": noisy(task, 1.0), "b": noisy(task, 0.5, seed=3)}
    scores = compare(task, answers, 0, by="x")
    part = replace(task, wanted=task.wanted.isel(x=[4]), truth=task.truth.isel(x=[4]))
    expected = compare(part, {name: answer.isel(x=[4]) for name, answer in answers.items()}, 0)
    assert find(scores, "b", "rmse", "sst x=4").value == find(expected, "b", "rmse", "sst").value
    assert find(scores, "b", "skill", "x=4").low == find(expected, "b", "skill", "all").low
    with pytest.raises(DataError, match="other than 'time'"):
        compare(task, answers, 0, by="time")


def test_better_is_said_only_where_the_interval_excludes_zero():
    task = make_task()
    answers = {
        "reference": noisy(task, 1.0),
        "good": noisy(task, 0.5, seed=2),
        "bad": noisy(task, 2.0, seed=3),
        "same": noisy(task, 1.0, seed=4),
    }
    scores = compare(task, answers, 0)
    assert judge(find(scores, "good", "skill", "all")) == "better"
    assert judge(find(scores, "bad", "skill", "all")) == "worse"
    assert judge(find(scores, "same", "skill", "all")) == "no difference shown"
    assert judge(find(scores, "reference", "skill", "all")) == "no difference shown"
    lines = verdict(scores).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("good is better than reference: skill 0.7")
    assert lines[1].startswith("bad is worse than reference: skill -")
    assert lines[2].startswith("same: no difference from reference shown: skill ")


def test_without_enough_blocks_nothing_is_claimed():
    task = make_task(size=4)
    task = replace(task, wanted=xr.ones_like(task.wanted))
    scores = compare(task, {"reference": noisy(task, 5.0), "model": noisy(task, 0.1, seed=2)}, 0)
    assert "no difference from reference shown" in verdict(scores)
    assert "too few blocks" in verdict(scores)
