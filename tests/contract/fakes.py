"""Five fake systems, one for each kind of data that the real ones have. Each is about 20 lines of its own."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gridloom.core.batch import Batch, Step, masked_mean
from gridloom.core.contracts import FeatureSpec, FieldSpec, InputSpec, Objective
from gridloom.core.random import uniform
from tests.contract.arrays import SIZE, Arrays, FakeConfig, FakeEncoder, fake

# --- sequence: bytes with slots, causal targets ---


@cache
def sequence_arrays() -> Arrays:
    rng = np.random.default_rng(1)
    slots = (np.arange(SIZE)[:, None] + np.arange(6)) % 5
    frames = (slots[..., None, None] * 40 + rng.integers(0, 20, (SIZE, 6, 4, 4))).astype(np.uint8)
    frames[::7, 2, :2] = 255  # missing
    return Arrays({"frames": frames}, {"slot": slots.astype(np.int64)})


def sequence_encoder(config: FakeConfig) -> FakeEncoder:
    layers = nn.ModuleDict({"pixel": nn.Linear(32, config.width), "slot": nn.Embedding(5, config.width)})
    inputs = InputSpec(
        fields={"frames": FieldSpec(dims=("time", "y", "x"), size=(6, 4, 4), dtype="uint8")},
        features={"slot": FeatureSpec(dims=("time",), size=(6,))},
    )
    return FakeEncoder(inputs, layers, lambda layers, batch: sequence_states(layers, batch)[:, -1])


def sequence_states(layers: nn.ModuleDict, batch: Batch) -> Tensor:
    frames = batch.fields["frames"]
    seen = torch.cat([(frames.values.float() / 255).flatten(2), frames.valid.float().flatten(2)], dim=-1)
    z = layers["pixel"](seen) + layers["slot"](batch.features["slot"][:, : seen.shape[1]])
    return z + z.cumsum(1) / torch.arange(1, z.shape[1] + 1)[:, None]


class Sequence(Objective):
    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.encoder, self.head = sequence_encoder(config), nn.Linear(config.width, 16)

    def answer(self, batch: Batch) -> Tensor:
        """Frame t from the frames before it; the first one is nobody's to know."""
        guess = self.next_frames(batch)
        return torch.cat([torch.full_like(guess[:, :1], 90), guess[:, :-1]], dim=1)

    def next_frames(self, batch: Batch) -> Tensor:
        states = sequence_states(self.encoder.layers, batch)
        hidden = F.gelu(states)
        if self.training:  # dropout from the sample's own key is the same on one rank and on two
            hidden = hidden * (uniform(batch.key, tuple(hidden.shape[1:]), "dropout") >= 0.1) / 0.9
        return self.head(hidden).sigmoid().mul(255).unflatten(-1, (4, 4))

    def forward(self, batch: Batch) -> Step:
        target, guess = batch.fields["frames"], self.next_frames(batch)
        error = (guess[:, :-1] - target.values[:, 1:].float()).div(255).square()
        return Step(loss=masked_mean(error, target.valid[:, 1:]), metrics={})


SEQUENCE = fake("fake_sequence", sequence_arrays, Sequence, sequence_encoder, "frames")

# --- point: an image and a coordinate, sampled negatives ---


@cache
def point_arrays() -> Arrays:
    rng = np.random.default_rng(2)
    place = rng.uniform(-0.8, 0.8, (SIZE, 2)).astype(np.float32)
    grid = np.linspace(-1, 1, 8, dtype=np.float32)
    distance = (grid[:, None] - place[:, :1, None]) ** 2 + (grid - place[:, 1:, None]) ** 2
    return Arrays({"image": np.exp(-8 * distance)[:, None], "target": place}, {})


def point_encoder(config: FakeConfig) -> FakeEncoder:
    inputs = InputSpec(fields={"image": FieldSpec(dims=("channel", "y", "x"), size=(1, 8, 8))})
    return FakeEncoder(
        inputs, nn.Linear(64, config.width), lambda layer, batch: layer(batch.fields["image"].values.flatten(1))
    )


class Point(Objective):
    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.encoder = point_encoder(config)
        self.energy = nn.Sequential(nn.Linear(config.width + 2, 32), nn.ReLU(), nn.Linear(32, 1))

    def energies(self, batch: Batch, candidates: Tensor) -> Tensor:
        z = self.encoder(batch)["embedding"][:, None].expand(-1, candidates.shape[1], -1)
        return self.energy(torch.cat([z, candidates], dim=-1)).squeeze(-1)

    def answer(self, batch: Batch) -> Tensor:
        axis = torch.linspace(-1, 1, 21)
        grid = torch.cartesian_prod(axis, axis).expand(len(batch), -1, -1)
        return grid[torch.arange(len(batch)), self.energies(batch, grid).argmin(1)]

    def forward(self, batch: Batch) -> Step:
        negatives = 2 * uniform(batch.key, (16, 2), "negatives") - 1
        energies = self.energies(batch, torch.cat([batch.fields["target"].values[:, None], negatives], dim=1))
        loss = F.cross_entropy(-energies, torch.zeros(len(batch), dtype=torch.long), reduction="none")
        return Step(loss=loss, metrics={"separation": (energies[:, 1:].mean(1) - energies[:, 0]).detach()})


POINT = fake("fake_point", point_arrays, Point, point_encoder, "target")

# --- modalities: a grid, a series and static attributes; the series is absent for some ---


@cache
def modality_arrays() -> Arrays:
    rng = np.random.default_rng(3)
    level = rng.normal(size=(SIZE, 1)).astype(np.float32)
    grid = (level[:, :, None] + 0.1 * rng.normal(size=(SIZE, 6, 6))).astype(np.float32)
    grid[rng.random(grid.shape) < 0.2] = np.nan
    series = (level + np.linspace(0, 1, 10) + 0.1 * rng.normal(size=(SIZE, 10))).astype(np.float32)
    series[::3] = np.nan
    return Arrays({"grid": grid, "series": series, "static": np.c_[level, -level]}, {})


def modality_encoder(config: FakeConfig) -> FakeEncoder:
    sizes = {"grid": (6, 6), "series": (10,), "static": (2,)}
    specs = {name: FieldSpec(dims=("y", "x")[: len(size)], size=size) for name, size in sizes.items()}
    layers = nn.ModuleDict({name: nn.Linear(2 * int(np.prod(size)), config.width) for name, size in sizes.items()})
    return FakeEncoder(InputSpec(fields=specs), layers, modality_embedding)


def modality_embedding(layers: nn.ModuleDict, batch: Batch) -> Tensor:
    parts = []
    for name, layer in layers.items():
        field = batch.fields[name]
        here = field.valid.flatten(1).any(1, keepdim=True)
        if bool(here.any()):  # a modality that no sample has leaves its layer without a gradient
            tokens = layer(torch.cat([field.values.flatten(1), field.valid.flatten(1).float()], dim=1))
            parts.append(torch.where(here, tokens, 0.0))
    return torch.stack(parts).sum(0)


class Modalities(Objective):
    may_skip_parameters = True

    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.encoder, self.head = modality_encoder(config), nn.Linear(config.width, 36)

    def answer(self, batch: Batch) -> Tensor:
        grid = batch.fields["grid"]
        hidden = type(grid)(values=torch.zeros_like(grid.values), valid=torch.zeros_like(grid.valid))
        return self.head(self.encoder(batch.with_field("grid", hidden))["embedding"]).unflatten(1, (6, 6))

    def forward(self, batch: Batch) -> Step:
        grid = batch.fields["grid"]
        return Step(loss=masked_mean((self.answer(batch) - grid.values).square(), grid.valid), metrics={})


MODALITIES = fake("fake_modalities", modality_arrays, Modalities, modality_encoder, "grid")

# --- clip: frames with flow and cuts ---


@cache
def clip_arrays() -> Arrays:
    rng = np.random.default_rng(4)
    clean = rng.normal(size=(SIZE, 1, 2, 6, 6)).astype(np.float32).repeat(4, axis=1)
    clean[::5, 2:] += 1.0  # a cut
    noisy = clean + 0.3 * rng.normal(size=clean.shape).astype(np.float32)
    cut = np.zeros((SIZE, 4), dtype=bool)
    cut[::5, 2] = True
    flow = np.zeros((SIZE, 4, 2, 6, 6), dtype=np.float32)
    flow[1::9, 1] = np.nan
    return Arrays({"clip": noisy, "clean": clean, "flow": flow}, {"cut": cut})


def clip_encoder(config: FakeConfig) -> FakeEncoder:
    inputs = InputSpec(fields={"clip": FieldSpec(dims=("time", "channel", "y", "x"), size=(4, 2, 6, 6))})
    return FakeEncoder(
        inputs, nn.Linear(72, config.width), lambda layer, batch: layer(batch.fields["clip"].values[:, -1].flatten(1))
    )


class Clip(Objective):
    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.encoder, self.gate = clip_encoder(config), nn.Linear(config.width, 1)
        self.register_buffer("strength", torch.zeros(()))

    def begin_step(self, step: int) -> None:
        self.strength.fill_(min(1.0, step / 5))

    def answer(self, batch: Batch) -> Tensor:
        frames, flow, cut = batch.fields["clip"].values, batch.fields["flow"], batch.features["cut"]
        gate = self.strength * self.gate(self.encoder(batch)["embedding"]).sigmoid()[:, :, None, None]
        fused = [frames[:, 0]]
        for t in range(1, frames.shape[1]):
            use = gate * (flow.valid[:, t].all(1, keepdim=True) & ~cut[:, t, None, None, None])
            fused.append(use * fused[-1] + (1 - use) * frames[:, t])
        return torch.stack(fused, dim=1)

    def forward(self, batch: Batch) -> Step:
        clean = batch.fields["clean"]
        return Step(loss=masked_mean((self.answer(batch) - clean.values).square(), clean.valid), metrics={})


CLIP = fake("fake_clip", clip_arrays, Clip, clip_encoder, "clean")

# --- autoencoder: fields with missing cells ---


@cache
def autoencoder_arrays() -> Arrays:
    rng = np.random.default_rng(5)
    phase = rng.uniform(0, 2 * np.pi, (SIZE, 1, 1))
    field = np.sin(np.arange(8) / 2 + phase) * np.cos(np.arange(8)[:, None] / 3 + phase)
    field = field.astype(np.float32)[:, None]
    field[rng.random(field.shape) < 0.2] = np.nan
    return Arrays({"image": field}, {})


def autoencoder_encoder(config: FakeConfig) -> FakeEncoder:
    inputs = InputSpec(fields={"image": FieldSpec(dims=("channel", "y", "x"), size=(1, 8, 8))})
    layers = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(64, config.width)
    )
    return FakeEncoder(inputs, layers, lambda layers, batch: layers(with_mask(batch)))


def with_mask(batch: Batch) -> Tensor:
    image = batch.fields["image"]
    return torch.cat([image.values, image.valid.float()], dim=1)


class Auto(Objective):
    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = autoencoder_encoder(config), nn.Linear(config.width, 64)

    def answer(self, batch: Batch) -> Tensor:
        return self.decoder(self.encoder(batch)["embedding"]).unflatten(1, (1, 8, 8))

    def forward(self, batch: Batch) -> Step:
        image = batch.fields["image"]
        return Step(loss=masked_mean((self.answer(batch) - image.values).square(), image.valid), metrics={})


AUTOENCODER = fake("fake_autoencoder", autoencoder_arrays, Auto, autoencoder_encoder, "image")

FAKES = {system.name: system for system in (SEQUENCE, POINT, MODALITIES, CLIP, AUTOENCODER)}
