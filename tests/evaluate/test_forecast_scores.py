"""Scores of forecasts: definitions by slow loops, bands that hold what they say, frames that do not count."""

import numpy as np
import pytest
import xarray as xr

from gridloom.core.contracts import Task
from gridloom.core.errors import DataError
from gridloom.evaluate.ensemble import crps, ensemble_scores, pit
from gridloom.evaluate.forecast import forecast_scores, frame_errors
from gridloom.evaluate.similarity import psnr, ssim

LEADS = [1, 3]
DIMS = ("origin", "lead", "channel", "y", "x")


def make_task(num_origins=60, num_series=0, seed=0, size=8, num_slots=5):
    generator = np.random.default_rng(seed)
    shape = (max(num_series, 1), num_origins, 2, 2, size, size)
    truth = generator.random(shape).astype(np.float32) ** 3
    truth[..., :2] = 0
    truth[:, 5:9, 1] = np.nan
    wanted = np.broadcast_to(generator.random(shape[:3])[..., None, None, None] < 0.8, shape) & np.isfinite(truth)
    slot = (np.arange(num_origins)[:, None] + np.array(LEADS)) % num_slots
    coords = {"position": ("origin", np.arange(num_origins)), "lead": LEADS, "slot": (("origin", "lead"), slot)}
    coords["channel"] = ["B", "S"]
    dims = ("series", *DIMS)
    truth_data = xr.Dataset({"frames": (dims, truth, {"units": "1"})}, coords=coords)
    wanted_data = xr.Dataset({"frames": (dims, wanted)}, coords=coords)
    if not num_series:
        truth_data, wanted_data = truth_data.isel(series=0), wanted_data.isel(series=0)
    given = truth_data.isel(lead=0, drop=True).rename(origin="time")
    return Task(name="made", split="test", given=given, wanted=wanted_data, truth=truth_data, block_dim="origin")


def noisy(task, scale, seed):
    noise = np.random.default_rng(seed).normal(0, scale, task.truth["frames"].shape)
    return task.truth.fillna(0.5) + xr.Dataset({"frames": (task.truth["frames"].dims, noise.astype(np.float32))})


def find(scores, method, metric, group="all"):
    (score,) = [s for s in scores if (s.method, s.metric, s.group) == (method, metric, group)]
    return score


@pytest.mark.parametrize("num_series", [0, 2])
def test_errors_equal_a_slow_loop_in_both_conventions(num_series):
    task = make_task(num_series=num_series)
    answers = {"persistence": noisy(task, 0.3, 1), "slot mean": noisy(task, 0.2, 2), "model": noisy(task, 0.1, 3)}
    scores = frame_errors(task, answers, 4)
    truth, wanted = (data["frames"].values.reshape(-1, 60, 2, 2, 8, 8) for data in (task.truth, task.wanted))
    slots = task.truth["slot"].values
    groups = {"all": [], "lead=3": [], "slot=2": []}
    for method in answers:
        values = answers[method]["frames"].values.reshape(truth.shape)
        groups = {group: [] for group in groups}
        for series, origin, lead in np.ndindex(truth.shape[:3]):
            if wanted[series, origin, lead].all():
                error = float(np.square(values[series, origin, lead] - truth[series, origin, lead]).sum())
                groups["all"].append(error)
                if lead == 1:
                    groups["lead=3"].append(error)
                if slots[origin, lead] == 2:
                    groups["slot=2"].append(error)
        for group, errors in groups.items():
            assert find(scores, method, "mse per frame", group).value == pytest.approx(np.mean(errors), rel=1e-5)
            assert find(scores, method, "mse", group).value == pytest.approx(np.mean(errors) / 128, rel=1e-5)
    mse = {method: find(scores, method, "mse").value for method in answers}
    for reference in ("persistence", "slot mean"):
        skill = find(scores, "model", f"skill vs {reference}")
        assert skill.value == pytest.approx(1 - mse["model"] / mse[reference])
        assert skill.low < skill.value < skill.high and skill.num_blocks == 20
        assert find(scores, reference, f"skill vs {reference}").value == 0


def test_what_is_not_wanted_does_not_count():
    task = make_task()
    answers = noisy(task, 0.1, 1)
    spoiled = answers.where(task.wanted, 1000.0)
    first, second = (frame_errors(task, {"model": data}, 0) for data in (answers, spoiled))
    np.testing.assert_array_equal([score.value for score in first], [score.value for score in second])
    hidden = Task(name="", split="", given=task.given, wanted=task.wanted & False, truth=task.truth, block_dim="origin")
    with pytest.raises(DataError, match="nothing to score"):
        frame_errors(hidden, {"model": answers}, 0)


def test_a_frame_without_answer_is_told():
    task = make_task()
    answers = noisy(task, 0.1, 1)
    with pytest.raises(DataError, match=r"'model': \d+ of \d+ frames have no finite answer"):
        frame_errors(task, {"model": answers.where(answers["origin"] > 10)}, 0)


def test_many_slots_are_put_together():
    task = make_task(num_origins=200, num_slots=50)
    scores = frame_errors(task, {"model": noisy(task, 0.1, 1)}, 0, max_slots=5)
    groups = [s.group for s in scores if s.metric == "mse" and s.group.startswith("slot")]
    assert groups == ["slot=0-9", "slot=10-19", "slot=20-29", "slot=30-39", "slot=40-49"]
    assert not any(s.group.startswith("slot") for s in frame_errors(task, {"m": noisy(task, 0.1, 1)}, 0, max_slots=0))


def test_similarity_is_that_of_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    generator = np.random.default_rng(0)
    first, second = generator.random((2, 3, 16, 20))
    expected = [structural_similarity(a, b, data_range=1) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(ssim(first, second), expected, rtol=1e-9)
    noise = peak_signal_noise_ratio(first, second, data_range=1)
    assert float(psnr(np.square(first - second).mean(keepdims=True)).item()) == pytest.approx(noise)
    assert float(psnr(np.zeros(1))[0]) == 100
    with pytest.raises(DataError, match="at least 7 x 7"):
        ssim(first[..., :5], second[..., :5])


def test_frames_smaller_than_a_window_have_no_similarity_but_all_else():
    task = make_task(size=4)
    metrics = {score.metric for score in frame_errors(task, {"model": noisy(task, 0.1, 1)}, 0)}
    assert "ssim" not in metrics and {"mse", "psnr", "mae per frame"} <= metrics


def test_crps_equals_its_definition_and_is_fair():
    generator = np.random.default_rng(0)
    samples, truth = generator.normal(size=(5, 7)), generator.normal(size=7)
    for cell in range(7):
        x = samples[:, cell]
        pairs = [abs(a - b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
        slow = np.abs(x - truth[cell]).mean() - np.mean(pairs) / 2
        assert crps(samples, truth)[cell] == pytest.approx(slow)
    many = generator.normal(size=(3, 40_000)), generator.normal(size=40_000)
    assert crps(*many).mean() == pytest.approx(1 / np.sqrt(np.pi), abs=0.015)  # as for a whole normal distribution
    np.testing.assert_allclose(crps(samples[:1], truth), np.abs(samples[0] - truth))


def test_the_rank_is_uniform_among_ties_too():
    generator = np.random.default_rng(0)
    draws = generator.poisson(0.2, size=(9, 20_000))
    rank = pit(draws[1:].astype(float), draws[0].astype(float), generator)
    shares = np.histogram(rank, bins=10, range=(0, 1))[0] / 20_000
    assert np.abs(shares - 0.1).max() < 0.01


def with_samples(task, spread, num_samples=12, seed=1):
    """Truth and samples around a center that is known: right where the spread is 1."""
    generator = np.random.default_rng(seed)
    shape = task.truth["frames"].shape
    center = np.full(shape, 0.5)
    center[..., :2] = 0
    scale = np.where(center > 0, 0.1, 0)
    truth = task.truth.copy(data={"frames": (center + scale * generator.normal(size=shape)).astype(np.float32)})
    truth = truth.where(task.truth["frames"].notnull())
    paths = center + spread * scale * generator.normal(size=(num_samples, *shape))
    dims = task.truth["frames"].dims
    answers = xr.Dataset(
        {"frames": (dims, center), "frames_sample": (("sample", *dims), paths)}, coords=task.wanted.coords
    )
    given = truth.isel(lead=0, drop=True).rename(origin="time")
    return Task(name="", split="", given=given, wanted=task.wanted, truth=truth, block_dim="origin"), answers


def test_bands_of_right_samples_hold_what_they_say_and_narrow_ones_less():
    base = make_task(num_origins=150)
    task, right = with_samples(base, 1.0)
    narrow = with_samples(base, 0.3)[1]
    scores = ensemble_scores(task, {"right": right, "narrow": narrow, "point": right[["frames"]]}, 0)
    for group in ("pixel", "total", "total B", "total S", "pixel lead=3"):
        for level, tolerance in ((0.5, 0.08), (0.9, 0.05)):
            metric = f"coverage {level * 100:.0f} %"
            assert find(scores, "right", metric, group).value == pytest.approx(level, abs=tolerance)
            assert find(scores, "narrow", metric, group).value < level - 0.1
    assert find(scores, "right", "crps").value < find(scores, "narrow", "crps").value
    assert find(scores, "narrow", "crps").value < find(scores, "point", "crps").value
    assert find(scores, "right", "crps of total").value < find(scores, "point", "crps of total").value
    assert not [score for score in scores if score.method == "point" and score.metric.startswith("coverage")]
    error = frame_errors(task, {"point": right[["frames"]]}, 0)
    assert find(scores, "point", "crps").value == pytest.approx(find(error, "point", "mae").value, rel=1e-5)


def test_cells_that_are_always_empty_are_left_out_of_the_coverage():
    task, answers = with_samples(make_task(), 0.01)
    coverage = find(ensemble_scores(task, {"model": answers}, 0), "model", "coverage 90 %", "pixel").value
    assert coverage == pytest.approx(1 - 0.05 * 13, abs=0.03)  # the truth is outermost; with the empty cells 0.49


def test_samples_may_be_a_dimension_of_the_answer():
    task, answers = with_samples(make_task(), 1.0)
    paths = answers[["frames_sample"]].rename(frames_sample="frames")
    by_name, by_dimension = (ensemble_scores(task, {"model": data}, 0) for data in (answers, paths))
    assert [score.value for score in by_name] == [score.value for score in by_dimension]
    errors = frame_errors(task, {"model": paths}, 0)
    assert find(errors, "model", "mse").value == pytest.approx(0.0075, rel=0.15)  # the mean of twelve is off a little


def test_forecast_scores_are_errors_then_ensembles():
    task, answers = with_samples(make_task(), 1.0)
    predictions = {"persistence": noisy(task, 0.2, 1), "model": answers}
    scores = forecast_scores(task, predictions, 3)
    metrics = list(dict.fromkeys(score.metric for score in scores))
    assert metrics[0] == "skill vs persistence" and "crps" in metrics and "coverage 90 %" in metrics
    assert "skill vs slot mean" not in metrics
    assert {score.seed for score in scores} == {3}
    assert not [s for s in forecast_scores(task, {"persistence": predictions["persistence"]}, 0) if "crps" in s.metric]
