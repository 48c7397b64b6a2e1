"""The motion network: what it sees, what it does to the last frame, and that it fits in with the rest."""

from typing import Any

import numpy as np
import pytest
import torch

from gridloom.core.errors import ConfigError
from gridloom.core.system import Trained
from gridloom.systems.heatmap.config import LocalConfig, MemoryConfig, ModelConfig, MotionConfig
from gridloom.systems.heatmap.data import prepare, resolve
from gridloom.systems.heatmap.fast import fast_model
from gridloom.systems.heatmap.initialize import initialize
from gridloom.systems.heatmap.motion import MotionNetwork, correlate, move
from gridloom.systems.heatmap.objective import NextFrame
from gridloom.systems.heatmap.predict import HeatmapForecaster
from gridloom.systems.heatmap.rollout import begin, roll_out
from gridloom.systems.heatmap.wrapper import AutoRegWrapper
from tests.systems.heatmap.small import (
    SIZE,
    SMALL,
    TRANSFORMER,
    config,
    frames_dataset,
    jitter,
    pixels,
    save,
    slots_of,
    small_model,
)

REACH, NUM_FRAMES = 2, 3
MOTION = MotionConfig(reach=REACH, hidden=12, num_frames=NUM_FRAMES)
MEMORY = MemoryConfig(averages=(0.3,), lags=(1, 2, 3, 5))
MODEL: dict[str, Any] = {"residual": "last", "memory": MEMORY, "motion": MOTION, "causal": TRANSFORMER}


def network() -> MotionNetwork:
    torch.manual_seed(0)
    return MotionNetwork(ModelConfig(**SMALL, **MODEL))


def moves(parameter: torch.Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def slow_shift(frame: np.ndarray, down: int, right: int) -> np.ndarray:
    """A frame moved cell by cell; what leaves is lost."""
    found = np.zeros_like(frame)
    for y in range(len(frame)):
        for x in range(frame.shape[1]):
            if 0 <= y - down < len(frame) and 0 <= x - right < frame.shape[1]:
                found[y, x] = frame[y - down, x - right]
    return found


def test_correlations_are_the_sums_of_products_of_shifted_frames() -> None:
    before, after = pixels(3, 6, 7, seed=1).double(), pixels(3, 6, 7, seed=2).double()
    found = correlate(before, after, REACH)
    for sample in range(3):
        for down in range(-REACH, REACH + 1):
            for right in range(-REACH, REACH + 1):
                expected = (slow_shift(before[sample].numpy(), down, right) * after[sample].numpy()).sum()
                assert float(found[sample, down + REACH, right + REACH]) == pytest.approx(expected, rel=1e-12)


def test_the_largest_correlation_is_at_the_motion() -> None:
    frame = torch.zeros(1, SIZE, SIZE)
    frame[0, 2:5, 3:5] = pixels(3, 2)
    after = torch.from_numpy(slow_shift(frame[0].numpy(), 2, -1))[None]
    assert divmod(int(correlate(frame, after, REACH).flatten().argmax()), 2 * REACH + 1) == (2 + REACH, -1 + REACH)


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-2, 2), (0, 1), (-1, 0)])
def test_a_peaked_distribution_moves_frames_by_whole_cells_exactly(down: int, right: int) -> None:
    frames = pixels(4, SIZE, SIZE)
    logits = torch.zeros(4, 2 * REACH + 1, 2 * REACH + 1)
    logits[:, down + REACH, right + REACH] = 200.0
    moved = move(frames, logits.flatten(1).softmax(-1).view_as(logits))
    assert np.array_equal(moved.numpy(), np.stack([slow_shift(frame.numpy(), down, right) for frame in frames]))


def test_a_peaked_network_moves_the_last_frame_of_each_channel() -> None:
    net = network()
    with torch.no_grad():
        net.share.bias.fill_(1.0)
        net.shifts.weight.zero_()
        net.shifts.bias.zero_()
        net.shifts.bias[(1 + REACH) * (2 * REACH + 1) + 2 + REACH] = 200.0
    remembered = pixels(2, 3, 6, 2, SIZE * SIZE)
    last = remembered[:, :, 2].reshape(-1, SIZE, SIZE)
    expected = np.stack([slow_shift(frame.numpy(), 1, 2) for frame in last]).reshape(2, 3, 2, -1)
    assert np.allclose(net(remembered).detach().numpy(), expected, rtol=0, atol=1e-6)


def test_an_untrained_model_forecasts_the_last_frame_to_the_bit() -> None:
    torch.manual_seed(0)
    model = AutoRegWrapper(ModelConfig(**SMALL, **MODEL)).eval()
    frames = pixels(2, 6, 2, SIZE, SIZE)
    assert torch.equal(model(frames, slots_of(2, 6)).x_hat, frames)


def test_frames_from_before_the_begin_are_zeros_that_move_nothing() -> None:
    net = jitter(network())
    assert torch.equal(net(torch.zeros(2, 3, 6, 2, SIZE * SIZE)), torch.zeros(2, 3, 2, SIZE * SIZE))
    begun = torch.zeros(1, 1, 6, 2, SIZE * SIZE)
    begun[:, :, 2] = pixels(2, SIZE * SIZE)
    begun.requires_grad_()
    moved = net(begun)
    moved.sum().backward()
    assert begun.grad is not None
    assert bool(moved.isfinite().all()) and bool(begun.grad.isfinite().all())


def test_other_features_than_the_last_frames_do_not_count() -> None:
    net = jitter(network())
    remembered = pixels(2, 3, 6, 2, SIZE * SIZE)
    other = remembered.clone()
    other[:, :, [0, 1, 5]] = 0.5
    assert torch.equal(net(remembered), net(other))


def test_every_parameter_gets_a_gradient_after_the_first_step() -> None:
    """At the very start only the share of the motion does, since it is 0."""
    net, remembered = network(), pixels(2, 3, 6, 2, SIZE * SIZE)
    net(remembered).square().sum().backward()
    started = {name for name, parameter in net.named_parameters() if moves(parameter)}
    assert started == {"share.weight", "share.bias"}
    jitter(net)(remembered).square().sum().backward()
    assert all(moves(parameter) for parameter in net.parameters())


def test_gradients_are_those_of_finite_differences() -> None:
    net = jitter(network()).double()
    remembered = pixels(1, 1, 6, 2, SIZE * SIZE).double()

    moved = pixels(2, 4, 5, seed=3).double().requires_grad_(), pixels(2, 3, 3, seed=4).double().requires_grad_()
    assert torch.autograd.gradcheck(move, moved)
    value = net(remembered).square().sum()
    (slope,) = torch.autograd.grad(value, net.first.bias)
    with torch.no_grad():
        net.first.bias[0] += 1e-6
        higher = net(remembered).square().sum()
    assert float((higher - value.detach()) / 1e-6) == pytest.approx(float(slope[0]), rel=1e-3, abs=1e-9)


def test_a_later_frame_changes_nothing_before_it() -> None:
    model = small_model(**MODEL)
    frames, slots = pixels(2, 7, 2, SIZE, SIZE), slots_of(2, 7)
    changed = frames.clone()
    changed[:, 4:] = pixels(2, 3, 2, SIZE, SIZE, seed=9)
    first, second = model(frames, slots).x_hat, model(changed, slots).x_hat
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4], second[:, 4])


def test_it_learns_a_steady_motion() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = MotionNetwork(ModelConfig(**SMALL, **{**MODEL, "motion": MotionConfig(reach=REACH, num_frames=NUM_FRAMES)}))
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, eps=1e-12)

    def draw(size: int) -> tuple[torch.Tensor, torch.Tensor]:
        dots, steps = torch.zeros(size, 4, SIZE, SIZE), torch.randint(-1, 2, (size, 2), generator=generator)
        for time in range(4):
            place = 4 + (time - 2) * steps
            dots[torch.arange(size), time, place[:, 0], place[:, 1]] = 1.0
        known = torch.zeros(size, 1, 6, 1, SIZE * SIZE)
        known[:, 0, 2:5, 0] = dots[:, [2, 1, 0]].flatten(2)
        return known, dots[:, 3].flatten(1)

    for _ in range(80):
        known, truth = draw(16)
        loss = (net(known)[:, 0, 0] - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    known, truth = draw(64)
    still = (known[:, 0, 2, 0] - truth).square().mean()
    assert float((net(known)[:, 0, 0] - truth).square().mean().detach()) < 0.05 * float(still)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_rollout_of_true_frames_is_the_teacher_forced_pass(precision: str) -> None:
    model = small_model(size=0.05, **MODEL)
    frames, slots = pixels(2, 6, 2, SIZE, SIZE), slots_of(2, 6)
    taught = model(frames, slots).x_hat
    arranged = fast_model(model, precision=precision)
    session, valid = torch.zeros(2, dtype=torch.int64), torch.ones(2, dtype=torch.bool)
    memory = arranged.new_memory(2)
    for time in range(6):
        memory.update(arranged.to_cells(frames[:, time]), slots[:, time], session, valid)
        past = begin(arranged, frames[:, : time + 1], slots[:, : time + 1], memory.copy())
        found = roll_out(arranged, past, (slots[:, time : time + 1] + 1) % 6, session[:, None])[:, 0]
        assert torch.allclose(found, taught[:, time], rtol=0, atol=1e-5 if precision == "fp32" else 0.02)


def test_the_rollout_feeds_back_as_if_its_answers_had_come() -> None:
    model = small_model(size=0.05, **MODEL)
    frames, slots = pixels(1, 4, 2, SIZE, SIZE), slots_of(1, 7)
    memory = model.new_memory(1)
    session, valid = torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool)
    for time in range(4):
        memory.update(model.to_cells(frames[:, time]), slots[:, time], session, valid)
    past = begin(model, frames, slots[:, :4], memory)
    found = roll_out(model, past, slots[:, 4:], torch.zeros(1, 3, dtype=torch.int64))
    taught = model(torch.cat([frames, found[:, :2]], dim=1), slots[:, :6]).x_hat
    assert torch.allclose(found, taught[:, 3:], rtol=0, atol=1e-5)


def test_a_forecaster_answers_as_the_objective_does_and_forgets_other_sessions(tmp_path: Any) -> None:
    path = save(frames_dataset(sessions=10), tmp_path)
    model = {"residual": "last", "memory": MEMORY, "motion": MOTION, "local": LocalConfig(width=4, kernel=3)}
    whole = resolve(config(path, model=model, data={"leads": (1,), "window": 6}))
    prepared = prepare(whole)
    objective = NextFrame(whole)
    initialize(objective, whole, prepared)
    jitter(objective, 0.05)
    task = prepared.task("test")
    forecaster = HeatmapForecaster(Trained(config=whole, objective=objective, normalizer={}))
    answers = forecaster.predict(task.given, task.wanted)["frames"].values
    source = prepared.sources["test"]
    batch = source.collate(list(range(len(source))), 0)
    x_hat = objective.eval().model.predict(
        batch.fields["frames"].values[:, :-1],
        batch.features["slot"][:, :-1],
        batch.features["slot"][:, 1:],
        batch.features["remembered"],
    )
    positions = list(task.wanted["position"].values)
    starts = source.starts[:, 1]  # type: ignore[attr-defined]
    compared = 0
    for window, start in enumerate(starts):
        for step in range(5):
            if int(start) + step in positions:
                origin = positions.index(int(start) + step)
                expected = x_hat[window, step].detach().clamp(0, 1).numpy()
                assert np.allclose(answers[origin, 0], expected, rtol=0, atol=1e-5)
                compared += 1
    assert compared >= 5


@pytest.mark.parametrize(
    "changes",
    [
        {"residual": "ema"},
        {"residual": "none"},
        {"memory": MemoryConfig(lags=(1, 2))},
        {"memory": MemoryConfig(lags=(2, 1, 3))},
        {"memory": MemoryConfig(lags=(1, 2, 3), cells="seen")},
    ],
)
def test_a_memory_without_the_last_frames_is_refused_in_one_line(changes: dict[str, Any]) -> None:
    averages = {"memory": MemoryConfig(averages=(0.3,), lags=(1, 2, 3))}
    with pytest.raises(ConfigError, match=r"^model\.motion moves the last frame") as caught:
        ModelConfig(**{**SMALL, **MODEL, **averages, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"reach": -1}, {"hidden": 0}, {"num_frames": 1}])
def test_sizes_that_show_no_motion_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"^motion: reach must be"):
        MotionConfig(**wrong)
