"""Every switch builds, trains, and does what its name says."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from gridloom.core.contracts import Prepared
from gridloom.core.errors import ConfigError
from gridloom.systems.heatmap import HeatmapEncoder, ModelConfig
from gridloom.systems.heatmap.config import (
    CausalConfig,
    DataConfig,
    HeatmapConfig,
    LocalConfig,
    LossConfig,
    MemoryConfig,
)
from gridloom.systems.heatmap.data import open_record, prepare, resolve
from gridloom.systems.heatmap.initialize import initialize
from gridloom.systems.heatmap.objective import NextFrame, elementwise_loss
from gridloom.systems.heatmap.presets import PRESETS
from gridloom.systems.heatmap.scale import PixelScale
from gridloom.systems.heatmap.wrapper import AutoRegWrapper
from tests.systems.heatmap.small import (
    CAP,
    LOCAL,
    MEMORY,
    SIZE,
    SMALL,
    TRANSFORMER,
    config,
    frames_dataset,
    jitter,
    make_batch,
    pixels,
    save,
    slots_of,
    small_model,
    small_objective,
)

BASE = {"residual": "slot_mean", "memory": MEMORY}
SWITCHES: dict[str, dict] = {
    "gap": {"pool": "gap"},
    "flatten": {"pool": "flatten"},
    "softargmax": {"pool": "softargmax"},
    "normalize none": {"normalize": "none"},
    "normalize dataset": {"normalize": "dataset"},
    "normalize frame+stats": {"normalize": "frame+stats"},
    "transformer": {"causal": TRANSFORMER},
    "transformer with dropout": {"causal": replace(TRANSFORMER, dropout=0.2)},
    "next slot": {"next_slot": True},
    "output bias": {"output_bias": True},
    "slot_init_std": {"slot_init_std": 0.02, "alpha": 0.5},
    "residual last": {"residual": "last", "memory": MemoryConfig()},
    "residual ema": {"residual": "ema", "memory": MEMORY},
    "residual slot_mean": BASE,
    "local": {**BASE, "local": LOCAL},
    "local of neighbors": {**BASE, "local": replace(LOCAL, kernel=3, depth=1)},
    "local alone": {**BASE, "local": LOCAL, "decode": False},
    "seen cells": {**BASE, "local": LOCAL, "memory": replace(MEMORY, cells="seen")},
    "averages of counts": {**BASE, "memory": replace(MEMORY, count_averages=(0.1, 0.5)), "local": LOCAL},
}
LOSSES = {
    "smooth_l1": LossConfig(),
    "bce": LossConfig(kind="bce"),
    "poisson": LossConfig(kind="poisson"),
    "context noise": LossConfig(context_noise=0.1),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    dataset = frames_dataset(sessions=10, halted=0.05)
    dataset["counts"][:, :, 0, :3] = 0  # cells where nothing ever happens
    return save(dataset, tmp_path_factory.mktemp("frames"))


@lru_cache
def prepared_once(path: str, residual: str, memory: MemoryConfig, within_session: bool) -> Prepared:
    """Data depend on these alone."""
    model = {"residual": residual, "memory": memory}
    return prepare(config(path, model=model, data={"within_session": within_session}))


def started(whole: HeatmapConfig) -> tuple[NextFrame, HeatmapConfig, Prepared]:
    """An objective as a run begins with it."""
    whole = resolve(whole)
    model = whole.model
    prepared = prepared_once(whole.data.path, model.residual, model.memory, whole.data.within_session)
    torch.manual_seed(0)
    objective = NextFrame(whole)
    initialize(objective, whole, prepared)
    return objective, whole, prepared


@pytest.mark.parametrize("switch", [*SWITCHES, *LOSSES])
def test_every_switch_trains_two_steps(switch: str, path: str) -> None:
    whole = config(path, model=SWITCHES.get(switch, {}), loss=LOSSES.get(switch))
    objective, _, prepared = started(whole)
    source, losses = prepared.sources["train"], []
    batch = source.collate(range(min(8, len(source))), 0)
    optimizer = torch.optim.SGD(objective.train().parameters(), lr=1e-2)
    for _ in range(3):
        loss = objective(batch).loss.mean()
        assert loss.isfinite()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
    assert losses[2] != losses[0]
    idle = [name for name, parameter in objective.named_parameters() if parameter.grad is None]
    assert all(name.startswith("model.encoder.") for name in idle)
    assert bool(idle) == (switch == "local alone") == objective.may_skip_parameters, "ranks look for those without use"


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole_configurations(name: str) -> None:
    assert isinstance(PRESETS[name](), HeatmapConfig)


def test_the_seeds_preset_is_the_seeds_model() -> None:
    assert PRESETS["seed"]().model == ModelConfig() and PRESETS["seed"]().loss == LossConfig()


# The encoder's switches.


def shapes(*corners: tuple[int, int]) -> Tensor:
    """A square of events at each of some corners."""
    frames = torch.zeros(len(corners), 2, 32, 32)
    for number, (row, column) in enumerate(corners):
        frames[number, :, row : row + 4, column : column + 4] = 1.0
    return frames


def encode(x: Tensor, **changes: object) -> Tensor:
    torch.manual_seed(0)
    encoder = jitter(HeatmapEncoder(ModelConfig(**{**SMALL, "height": 32, "width": 32, **changes})), 0.05)
    return encoder(x, torch.zeros(len(x), dtype=torch.long)).detach()


@pytest.mark.parametrize("pool", ["gap", "flatten", "softargmax"])
def test_position_is_kept_by_all_but_the_mean(pool: str) -> None:
    # Far from the border, moved by a whole cell of the coarsest map, twice: the mean sees the same thing.
    first, second = encode(shapes((12, 12), (16, 16)), pool=pool)
    if pool == "gap":
        torch.testing.assert_close(first, second, rtol=0, atol=1e-4)
    else:
        assert (first - second).abs().max() > 0.02


def test_the_level_of_activity_is_lost_by_the_frame_and_kept_with_its_statistics() -> None:
    x = shapes((4, 4))
    both = torch.cat([x, 0.1 * x])
    first, second = encode(both)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)
    first, second = encode(both, normalize="frame+stats")
    assert (first - second).abs().max() > 0.05


def test_an_empty_frame_has_finite_statistics() -> None:
    assert encode(torch.zeros(1, 2, 32, 32), normalize="frame+stats").isfinite().all()


def test_slots_start_as_small_as_asked() -> None:
    torch.manual_seed(0)
    small, seed = (
        HeatmapEncoder(ModelConfig(**{**SMALL, "latent_dim": 256, "slot_init_std": std})).slot_embedding.weight.std()
        for std in (0.02, 1.0)
    )
    assert small.item() == pytest.approx(0.02, rel=0.1) and seed.item() == pytest.approx(1.0, rel=0.1)


def test_the_data_sets_statistics_are_those_of_the_training_part(path: str) -> None:
    objective, _, prepared = started(config(path, model={"normalize": "dataset"}))
    found = open_record(path)
    stop = prepared.history.sizes["time"]
    known = found.pixels(0, slice(0, stop))[found.valid[0, :stop]].astype(np.float64)
    mean = objective.model.encoder.mean.reshape(2, SIZE, SIZE).numpy()
    np.testing.assert_allclose(mean, known.mean(0), rtol=0, atol=1e-5)
    deviation = objective.model.encoder.std.numpy()
    typical = np.sqrt((known.std(0) ** 2).mean((1, 2), keepdims=True))
    np.testing.assert_allclose(deviation, np.maximum(known.std(0), 0.3 * typical), rtol=0, atol=1e-5)
    assert (deviation > 0).all(), "cells without events are not divided by nothing"


# Where a forecast starts.


@pytest.mark.parametrize("residual", ["last", "ema", "slot_mean"])
@pytest.mark.parametrize("local", [LocalConfig(), LOCAL])
def test_an_untrained_model_forecasts_its_base_exactly(residual: str, local: LocalConfig, path: str) -> None:
    model = {"residual": residual, "memory": MEMORY, "local": local, "next_slot": True}
    objective, _, prepared = started(config(path, model=model, data={"within_session": False}))
    source = prepared.sources["test"]
    batch = source.collate(range(len(source)), 0)
    frames, slots = batch.fields["frames"].values, batch.features["slot"]
    with torch.no_grad():
        found = objective.eval().model.predict(
            frames[:, :-1], slots[:, :-1], slots[:, 1:], batch.features["remembered"]
        )
    assert torch.equal(found, bases(path, residual, source).view(found.shape))
    error = (found.clamp(0, 1) - frames[:, 1:]).square()[batch.fields["frames"].valid[:, 1:].expand_as(found)].mean()
    with torch.no_grad():
        step = objective(batch)
    weights = batch.fields["frames"].valid[:, 1:].flatten(1).sum(1)
    assert ((step.metrics["mse"] * weights).sum() / weights.sum()).item() == pytest.approx(error.item(), rel=1e-4)


def bases(path: str, residual: str, source: object) -> Tensor:
    """The base at every predicted frame, by a loop over the record."""
    record = open_record(path)
    frames, means, counts = torch.from_numpy(record.pixels())[0], {}, {}
    last = average = torch.zeros(2, SIZE, SIZE)
    seen, known = 0, []
    for time in range(len(record)):
        slot = int(record.slot[time])
        mean = means.get(slot, torch.zeros(2, SIZE, SIZE))
        known.append({"last": last, "ema": average, "slot_mean": mean}[residual])
        if not record.valid[0, time]:
            continue
        last = frames[time]
        average = average + (torch.tensor(0.2) if seen else torch.tensor(1.0)) * (last - average)
        counts[slot] = counts.get(slot, 0) + 1
        means[slot] = mean + torch.maximum(torch.tensor(1.0) / counts[slot], torch.tensor(0.3)) * (last - mean)
        seen += 1
    return torch.stack([torch.stack(known[start + 1 : start + source.length]) for _, start in source.starts])


def test_an_output_bias_starts_at_the_mean_frame(path: str) -> None:
    objective, whole, prepared = started(config(path, model={"output_bias": True}))
    found = open_record(path)
    stop = prepared.history.sizes["time"]
    mean = torch.from_numpy(found.pixels(0, slice(0, stop))[found.valid[0, :stop]]).mean(0)
    torch.testing.assert_close(objective.model.bias.sigmoid(), mean.clamp(1e-4, 1 - 1e-4), rtol=0, atol=1e-5)
    x, slots = pixels(2, 3, 2, SIZE, SIZE), slots_of(2, 3)
    with torch.no_grad():
        near = objective.eval().model(x, slots).x_hat
        plain = AutoRegWrapper(replace(whole.model, output_bias=False)).eval()(x, slots).x_hat
        objective.model.decoder.start_at_zero()
        exact = objective.model(x, slots).x_hat
    torch.testing.assert_close(exact, mean.clamp(1e-4, 1 - 1e-4).expand_as(exact), rtol=0, atol=1e-5)
    assert (near - mean).square().mean() < 0.2 * (plain - mean).square().mean()


def test_the_next_slot_is_told_to_the_decoder() -> None:
    model, x, slots = small_model(next_slot=True), pixels(1, 4, 2, SIZE, SIZE), slots_of(1, 4)
    with torch.no_grad():
        found = [model.predict(x, slots, (slots + ahead) % 6) for ahead in (1, 1, 3)]
        without = small_model()
        same = [without.predict(x, slots, (slots + ahead) % 6) for ahead in (1, 3)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert torch.equal(same[0], same[1])


def test_cells_that_are_not_remembered_are_forecast_as_empty(path: str) -> None:
    memory = replace(MEMORY, cells="seen")
    objective, whole, prepared = started(
        config(path, model={**BASE, "memory": memory, "local": LOCAL, "decode": False})
    )
    jitter(objective)
    batch = prepared.sources["test"].collate([0, 1], 0)
    frames, slots = batch.fields["frames"].values, batch.features["slot"]
    with torch.no_grad():
        found = objective.model.predict(frames[:, :-1], slots[:, :-1], slots[:, 1:], batch.features["remembered"])
    assert whole.model.num_cells <= SIZE * SIZE - 3
    assert not found[..., 0, :3].any() and found[..., 1:, :].abs().min() > 0


def test_a_kernel_sees_neighbors_and_none_without() -> None:
    for kernel, reach in ((1, 0), (3, 2)):
        local = replace(LOCAL, kernel=kernel, depth=1, overall=False)
        model = small_model(**BASE, local=local, decode=False)
        assert model.local is not None
        known = pixels(1, 13 - 2, 2, SIZE * SIZE)[:, : model.local.mean.shape[0]]
        other = known.clone()
        other[..., 3 * SIZE + 3] += 0.5
        slot = torch.tensor([1])
        changed = (model.local(known, slot) != model.local(other, slot)).any(1).view(SIZE, SIZE).nonzero()
        assert (changed - 3).abs().max() <= max(reach - 1, 0) if kernel == 1 else (changed - 3).abs().max() == 1


# Losses.


@pytest.mark.parametrize("kind", ["smooth_l1", "bce", "poisson"])
@pytest.mark.parametrize("scale", [PixelScale(cap=CAP, kind="log1p"), PixelScale(cap=0, kind="log1p")])
def test_a_loss_is_least_at_the_truth(kind: str, scale: PixelScale) -> None:
    guesses = torch.linspace(0.001, 0.999, 999)
    for truth in (0.05, 0.3, 0.7, 0.95):
        loss = elementwise_loss(guesses, torch.full_like(guesses, truth), kind, scale)
        assert guesses[loss.argmin()].item() == pytest.approx(truth, abs=0.0015)


@pytest.mark.parametrize(("kind", "by"), [("smooth_l1", "pixel"), ("bce", "pixel"), ("poisson", "count")])
def test_over_several_truths_it_is_least_at_their_mean(kind: str, by: str) -> None:
    scale = PixelScale(cap=CAP, kind="log1p")
    counts = torch.tensor([0.0, 0.0, 1.0, 3.0, 9.0])
    truths, guesses = scale.pixels(counts), torch.linspace(0.001, 0.999, 999)
    loss = sum(elementwise_loss(guesses, truth.expand_as(guesses), kind, scale) for truth in truths)
    best = guesses[loss.argmin()]
    mean = truths.mean() if by == "pixel" else scale.pixels(counts.mean())
    assert best.item() == pytest.approx(mean.item(), abs=0.0015)


def test_the_seeds_loss_is_half_the_squared_error() -> None:
    guess, truth = pixels(100), pixels(100, seed=1)
    found = elementwise_loss(guess, truth, "smooth_l1", PixelScale(cap=0, kind="log1p"))
    torch.testing.assert_close(found, (guess - truth).square() / 2)


@pytest.mark.parametrize("kind", ["smooth_l1", "bce", "poisson"])
def test_losses_are_finite_beyond_0_and_1(kind: str) -> None:
    guess = torch.tensor([-0.5, 0.0, 1.0, 1.5])
    for truth in (0.0, 1.0):
        scale = PixelScale(cap=CAP, kind="log1p")
        assert elementwise_loss(guess, torch.full((4,), truth), kind, scale).isfinite().all()


def test_noise_comes_from_the_key_of_each_window_while_training() -> None:
    objective = small_objective(loss=LossConfig(context_noise=0.2), dropout=0.0, causal=TRANSFORMER)
    plain = small_objective(dropout=0.0, causal=TRANSFORMER)
    batch, other = make_batch(), replace(make_batch(), key=make_batch(seed=9).key)
    with torch.no_grad():
        assert torch.equal(objective.eval()(batch).loss, plain.eval()(batch).loss)
        objective.train()
        torch.manual_seed(1)
        first = objective(batch).loss
        torch.manual_seed(2)
        assert torch.equal(objective(batch).loss, first), "not from a global generator"
        assert not torch.equal(objective(other).loss, first)
        assert not torch.equal(plain.train()(batch).loss, first)
        torch.testing.assert_close(objective(batch.take(slice(1, 2))).loss, first[1:2], rtol=0, atol=1e-6)


def test_metrics_know_nothing_of_the_loss() -> None:
    batch, found = make_batch(), []
    for kind in ("smooth_l1", "bce", "poisson"):
        with torch.no_grad():
            found.append(small_objective(loss=LossConfig(kind=kind))(batch).metrics)
    frames = batch.fields["frames"].values
    persistence = (frames[:, 1:] - frames[:, :-1]).square().mean((1, 2, 3, 4))
    for metrics in found:
        assert torch.equal(metrics["mse"], found[0]["mse"])
        torch.testing.assert_close(metrics["mse_persistence"], persistence)


# Configurations that cannot be used.


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        (DataConfig, {"window": 1}, "data.window must be at least 2 frames, got 1"),
        (DataConfig, {"stride": 0}, "data.stride and data.max_origins must be at least 1, got 0 and 128"),
        (DataConfig, {"leads": (3, 1)}, r"data.leads must be rising numbers from 1 up, got \[3, 1\]"),
        (DataConfig, {"leads": ()}, "data.leads must be rising numbers"),
        (DataConfig, {"leads": (0, 1)}, "data.leads must be rising numbers"),
        (DataConfig, {"coarsen": (2,)}, "data.coarsen must have 1"),
        (DataConfig, {"fractions": (0.7, 0.1, 0.3)}, "data.fractions must be above 0 and add up to 1"),
        (DataConfig, {"fractions": (0.9, 0.1, 0.0)}, "data.fractions must be above 0 and add up to 1"),
        (DataConfig, {"num_samples": -1}, "data.num_samples must be 0 or more, got -1"),
        (MemoryConfig, {"seasonal": ((0, 0.1),)}, "memory.seasonal: expected"),
        (MemoryConfig, {"seasonal": ((24, 1.1),)}, "memory.seasonal: expected"),
        (MemoryConfig, {"averages": (0.0,)}, r"memory.averages must be rates above 0, up to 1, got \[0.0\]"),
        (MemoryConfig, {"count_averages": (2.0,)}, "memory.count_averages must be rates"),
        (MemoryConfig, {"deviation_averages": (-1.0,)}, "memory.deviation_averages must be rates"),
        (MemoryConfig, {"lags": (0,)}, r"memory.lags must be 1 or more, got \[0\]"),
        (MemoryConfig, {"deviation_lags": (-2,)}, "memory.deviation_lags must be 1 or more"),
        (LocalConfig, {"kernel": 2}, "local.kernel must be odd, got 2"),
        (LocalConfig, {"kernel": 0}, "local.kernel must be odd, got 0"),
        (LocalConfig, {"width": -1}, "local: width and embeddings must be 0 or more"),
        (LocalConfig, {"depth": 0}, "local: width and embeddings must be 0 or more and depth 1 or more"),
        (ModelConfig, {"height": 30}, "3 stages halve the frame, so its sides must be multiples of 8, got 30x32"),
        (ModelConfig, {"widths": (32, 60)}, r"model.widths: expected two or more multiples of 8 .*, got \[32, 60\]"),
        (ModelConfig, {"widths": (32,)}, "model.widths: expected two or more multiples of 8"),
        (ModelConfig, {"local": LOCAL}, "model.local corrects a base: set model.residual"),
        (ModelConfig, {"decode": False, "residual": "last"}, "model.decode false needs a local network"),
        (ModelConfig, {"output_bias": True, "residual": "last"}, "model.output_bias and model.residual both say"),
        (ModelConfig, {"residual": "ema"}, "takes the first of model.memory.averages, which is empty"),
        (ModelConfig, {"residual": "slot_mean"}, "takes the first of model.memory.seasonal, which is empty"),
        (
            ModelConfig,
            {**BASE, "local": replace(LOCAL, kernel=3), "memory": replace(MEMORY, cells="seen")},
            "model.local.kernel above 1 needs neighbors: set model.memory.cells to all",
        ),
        (LossConfig, {"context_noise": -0.1}, "loss.context_noise must be 0 or more, got -0.1"),
        (LossConfig, {"context_noise": float("nan")}, "loss.context_noise must be 0 or more, got nan"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(part: type, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        part(**values)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_heads_that_do_not_fit_are_said_when_it_is_built() -> None:
    with pytest.raises(ConfigError, match="the width 10 must be a multiple of twice the number of heads, got 4"):
        AutoRegWrapper(ModelConfig(**SMALL, causal=CausalConfig(kind="transformer", dim=10, num_heads=4)))


def test_data_of_pixels_need_no_counts(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((60, 2, SIZE, SIZE), dtype=np.float32)
    dataset = xr.Dataset({"frames": (("time", "channel", "y", "x"), frames)}, attrs={"num_slots": 6})
    whole = config(save(dataset, tmp_path), model=BASE, loss=LossConfig(kind="poisson"), data={"within_session": False})
    objective, whole, prepared = started(whole)
    assert whole.model.count_cap == 0
    assert objective(prepared.sources["train"].collate([0, 1], 0)).loss.isfinite().all()
