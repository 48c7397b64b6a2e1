"""What representations know: probes of learned encoders beside raw cells, PCA, an untrained encoder and four moments.

Digits (five shuffled stratified folds, and five that keep writers apart), textures (left half to right half), faces
(ten stratified halves) and the month of the year of the sea surface (36 months to 18). In every fold the encoder is
trained on the training samples alone, without their labels, and the probes are fitted on the same samples; so is PCA.
Intervals (90 %) resample blocks of samples; they know nothing of the seed of training.

Goals: figures of a plain convolutional network and of the best simple features, measured before this library was.

All folds of a data set share their settings, which were chosen without its first test fold: digits on folds 2 to 4
with fold 1 for validation (18 runs), textures on the left five eighths of the training half with the last three (6),
faces on three splits of the first training half (3). The sea surface takes the settings of the digits as they are. For
digits it took strong noise and holes, a low temperature (0.1 rather than 0.5), BatchNorm and a wider head; for textures
views that lie half a window apart.
`--full` adds what learns by reconstruction to the digits split by writer, and a second seed of the contrastive encoder.
`--quick` trains two steps, to see that it runs: its figures mean nothing.
"""

import base64
import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from common import Bench

CELLS = 32
"""Height and width of what the encoder takes."""
PCA = (16, 32, 64)
TRAINED = ("autoencoder", "masked", "contrastive")
SOURCES = (
    "core/random.py",
    "core/batch.py",
    "encoders/encoder.py",
    "evaluate/probe.py",
    "evaluate/readout.py",
    "evaluate/features.py",
    "grid/normalize.py",
    "grid/samples.py",
    "grid/sample_data.py",
    "nn/contrast.py",
    "nn/conv.py",
    "systems/semantic/augment.py",
    "systems/semantic/config.py",
    "systems/semantic/heads.py",
    "systems/semantic/model.py",
    "systems/semantic/objective.py",
    "train/loop.py",
    "train/optim.py",
)
GOALS = (
    ("digits", "10-shot linear", "contrastive", 94.0),
    ("digits", "linear", "contrastive", 98.5),
    ("textures", "linear", "contrastive", 97.3),
    ("textures", "1-nn", "contrastive", 95.6),
    ("faces", "linear", "contrastive", 99.0),
    ("faces", "1-nn", "contrastive", 98.2),
    ("ostia", "ridge", "autoencoder", 0.96),
    ("ostia", "1-nn", "autoencoder", 1.29),
)
"""Data, probe, method that is meant to reach it, figure."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A question: samples, their labels, and who is trained on when whom is asked."""

    fields: np.ndarray
    """[samples, y, x] in data units, NaN where missing; wider than `CELLS` where windows are joined."""
    labels: np.ndarray | xr.DataArray
    folds: list[tuple[np.ndarray, np.ndarray]]
    windows: Callable[[np.ndarray], np.ndarray]
    """From training samples to what the encoder is trained on."""
    config: Any
    """Settings of the contrastive encoder."""
    rebuild_steps: int
    """Steps of the two that learn by reconstruction."""
    blocks: np.ndarray | None = None


def digits(*, by_writer: bool) -> Case:
    from sklearn.model_selection import StratifiedKFold

    from gridloom.evaluate.bootstrap import block_ids
    from gridloom.grid.samples import open_sample
    from gridloom.systems.semantic.config import PRESETS

    sample = open_sample("digits")
    fields, labels = sample["image"].values, sample["digit"].values
    if by_writer:
        fold_of = block_ids(len(labels), 5)
        folds = [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(5)]
    else:
        folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(fields, labels))
    return Case(
        fields=fields,
        labels=labels,
        folds=folds,
        windows=lambda train: fields[train],
        config=PRESETS["digits-contrast"](),
        rebuild_steps=200,
    )


def _patches(pictures: np.ndarray, stride: int) -> np.ndarray:
    """Windows of each picture, [pictures, windows, y, x], each without its own mean."""
    views = np.lib.stride_tricks.sliding_window_view(pictures, (CELLS, CELLS), axis=(1, 2))[:, ::stride, ::stride]
    views = views.reshape(len(pictures), -1, CELLS, CELLS)
    return views - views.mean(axis=(2, 3), keepdims=True)


def textures() -> Case:
    from gridloom.grid.samples import open_sample
    from gridloom.systems.semantic.config import PRESETS

    pictures = open_sample("textures")["image"].values
    middle = pictures.shape[2] // 2
    left, right = _patches(pictures[:, :, :middle], CELLS), _patches(pictures[:, :, middle:], CELLS)
    count = left.shape[1]
    labels = np.tile(np.repeat(np.arange(len(pictures)), count), 2)
    half = len(pictures) * count
    return Case(
        fields=np.concatenate([left, right]).reshape(-1, CELLS, CELLS),
        labels=labels,
        folds=[(np.arange(half), np.arange(half, 2 * half))],
        windows=lambda train: _patches(pictures[:, :, :middle], 8).reshape(-1, CELLS, CELLS),
        config=PRESETS["textures"](),
        rebuild_steps=150,
        blocks=np.arange(2 * half) // 16,  # two rows of patches of one surface
    )


def faces() -> Case:
    from sklearn.model_selection import StratifiedShuffleSplit

    from gridloom.grid.samples import open_sample
    from gridloom.systems.semantic.config import PRESETS

    sample = open_sample("faces")
    labels, pictures = sample["face"].values, sample["image"].values
    fields = np.full((len(pictures), CELLS, CELLS), np.nan, dtype=np.float32)
    fields[:, : pictures.shape[1], : pictures.shape[2]] = pictures
    return Case(
        fields=fields,
        labels=labels,
        folds=list(StratifiedShuffleSplit(10, test_size=0.5, random_state=0).split(fields, labels)),
        windows=lambda train: fields[train],
        config=_with(
            PRESETS["digits-contrast"](),
            steps=100,
            batch_size=64,
            zoom=1.2,
            rotate=8.0,
            warp=0.04,
            gain=0.3,
            offset=0.3,
            noise=0.2,
            hide=0.1,
        ),
        rebuild_steps=50,
    )


def ostia() -> Case:
    from gridloom.grid.samples import open_sample
    from gridloom.systems.semantic.config import PRESETS

    sample = open_sample("ostia")
    values, months = sample["surface_temperature"].values, sample["month"].values
    width = -(-values.shape[2] // CELLS) * CELLS
    fields = np.full((len(values), CELLS, width), np.nan, dtype=np.float32)
    fields[:, : values.shape[1], : values.shape[2]] = values

    def windows(train: np.ndarray) -> np.ndarray:
        views = np.lib.stride_tricks.sliding_window_view(fields[train], CELLS, axis=2)[:, :, ::8]
        cut = views.transpose(0, 2, 1, 3).reshape(-1, CELLS, CELLS)
        return cut[np.isfinite(cut).any(axis=(1, 2))]

    return Case(
        fields=fields,
        labels=xr.DataArray(months.astype(np.float64), dims="time", attrs={"units": "months", "period": 12}),
        folds=[(np.arange(36), np.arange(36, len(values)))],
        windows=windows,
        config=_with(PRESETS["digits-contrast"](), steps=150, batch_size=128),
        rebuild_steps=150,
        blocks=np.arange(len(values)) // 3,
    )


CASES: dict[str, Callable[[], Case]] = {
    "digits": functools.partial(digits, by_writer=False),
    "textures": textures,
    "ostia": ostia,
    "faces": faces,
    "digits by writer": functools.partial(digits, by_writer=True),
}


def _with(config: Any, *, steps: int, batch_size: int, **augment: float) -> Any:
    """The settings with another length of training and other views."""
    views = dataclasses.replace(config.contrast.augment, **augment)
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, steps=steps, batch_size=batch_size),
        contrast=dataclasses.replace(config.contrast, augment=views),
    )


def _settings(case: Case, method: str, seed: int, steps: int | None) -> Any:
    """Settings of a method: those of the contrastive encoder, the loss and the length of training aside."""
    from gridloom.systems.semantic.config import ContrastConfig, MaskConfig

    config = case.config
    if method in ("autoencoder", "masked"):
        config = _with(config, steps=case.rebuild_steps, batch_size=64)
        mask = MaskConfig(share=0.4 if method == "masked" else 0.0)
        config = dataclasses.replace(config, contrast=ContrastConfig(), reconstruct=1.0, decode=True, mask=mask)
    train = dataclasses.replace(config.train, validate_every=0, tensorboard=False)
    if steps is not None:
        train = dataclasses.replace(train, steps=steps, batch_size=min(train.batch_size, 32))
    data = dataclasses.replace(config.data, variables=("image",), label="", window=(CELLS, CELLS))
    model = dataclasses.replace(config.model, input_channels=1)
    return dataclasses.replace(config, seed=seed, train=train, data=data, model=model)


def embed(case_name: str, method: str, fold: int, seed: int, steps: int | None) -> dict[str, Any]:
    """Train an encoder on the training samples of a fold and encode all samples of the case.

    Args:
        case_name: One of `CASES`.
        method: One of `TRAINED`, or `random encoder`.
        fold: Which.
        seed: Seed of weights, order and views.
        steps: Steps of training instead of those of the settings.
    """
    import torch

    from gridloom import SemanticEncoder
    from gridloom.encoders.artifact import write_artifact
    from gridloom.grid.normalize import fit_normalizer
    from gridloom.grid.source import GridSource
    from gridloom.grid.windows import cut_windows
    from gridloom.systems.semantic import SYSTEM
    from gridloom.train.distributed import processes
    from gridloom.train.loop import train

    case = CASES[case_name]()
    config = _settings(case, method, seed, steps)
    dataset = xr.Dataset({"image": (("sample", "y", "x"), case.windows(case.folds[fold][0]))})
    normalizer = fit_normalizer(dataset, kinds=config.data.normalize)
    torch.manual_seed(seed)
    objective = SYSTEM.objective(config)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if method != "random encoder":
            windows = cut_windows(dataset, sizes={"y": CELLS, "x": CELLS})
            source = GridSource(
                dataset, variables=("image",), windows=windows, normalizer=normalizer, seed=seed, keep_dims=("y", "x")
            )
            with processes("cpu") as peers:
                run = train(
                    objective, {"train": source}, config.train, seed=seed, folder=folder, peers=peers, record={}
                )
            if run.stopped_by is not None:
                raise SystemExit(f"{run.stopped_by}: stopped, nothing is kept of this cell")
        seconds = time.process_time() - started
        write_artifact(
            folder / "artifact",
            objective,
            kind="model",
            system=SYSTEM,
            config=config,
            normalizer=normalizer.to_json(),
            training={},
        )
        encoder = SemanticEncoder.from_pretrained(folder / "artifact", device="cpu")
    tiles = np.split(case.fields, case.fields.shape[2] // CELLS, axis=2)
    embeddings = np.concatenate([encoder.encode_numpy(tile) for tile in tiles], axis=1)
    code = base64.b64encode(embeddings.astype("<f4").tobytes()).decode()
    return {"embeddings": code, "features": embeddings.shape[1], "cpu_seconds": round(seconds, 1)}


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Embeddings of an encoder that is trained in each fold; cells of the benchmark."""

    bench: Bench
    case_name: str
    case: Case
    method: str
    seed: int
    seconds: list[float]

    def fit(self, train: np.ndarray) -> np.ndarray:
        """Train on these samples, or take what is kept, and return the embeddings of all samples."""
        fold = next(number for number, (known, _) in enumerate(self.case.folds) if np.array_equal(known, train))
        found = self.bench.cell(
            f"{self.case_name} {self.method} fold {fold}",
            embed,
            case_name=self.case_name,
            method=self.method,
            fold=fold,
            seed=self.seed,
            steps=2 if self.bench.quick else None,
        )
        self.seconds.append(found["cpu_seconds"])
        flat = np.frombuffer(base64.b64decode(found["embeddings"]), dtype="<f4")
        return flat.reshape(len(self.case.fields), found["features"])


def compare(bench: Bench, name: str) -> list[Any]:
    """Probe all methods on one case."""
    from gridloom.evaluate.features import PCAFeatures, flatten, moments
    from gridloom.evaluate.probe import probe

    case = CASES[name]()
    if bench.quick:
        case = dataclasses.replace(case, folds=case.folds[:1])
    raw = flatten(case.fields)
    features: dict[str, Any] = {"raw cells": raw}
    features |= {f"PCA-{count}": PCAFeatures(raw, count) for count in PCA}
    features["moments"] = moments(case.fields[:, None])
    seconds: dict[str, list[float]] = {}
    trained = TRAINED if bench.full or name != "digits by writer" else ("contrastive",)
    for method in ("random encoder", *trained):
        for seed in (0, 1) if bench.full and method == "contrastive" else (0,):
            label = f"{method}, seed {seed}" if seed else method
            features[label] = Learned(
                bench=bench,
                case_name=name,
                case=case,
                method=method,
                seed=seed,
                seconds=seconds.setdefault(label, []),
            )
    scores = probe(features, case.labels, folds=case.folds, blocks=case.blocks, data=name, split="test")
    show(bench, name, list(features), scores, {label: sum(spent) for label, spent in seconds.items()})
    return scores


def show(bench: Bench, name: str, methods: list[str], scores: list[Any], seconds: dict[str, float]) -> None:
    """Print the table of one case."""
    kept = {(s.method, s.group): s for s in scores if s.metric in ("accuracy", "mae")}
    groups = list(dict.fromkeys(group for _, group in kept))
    unit = next(iter(kept.values())).unit
    rows = []
    for method in methods:
        found = [kept[method, group] for group in groups]
        cells = [f"{s.value:.2f} ({s.low:.2f} to {s.high:.2f})" for s in found]
        rows.append([method, *cells, f"{seconds[method]:.0f}" if method in seconds else ""])
    print(f"\n{name}:")
    bench.table(["method", *(f"{group} [{unit}]" for group in groups), "CPU s of training"], rows)
    for score in kept.values():
        bench.figure(f"{name}: {score.method}, {score.group}", round(score.value, 3))


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    found = {(s.data, s.group, s.method): s for name in CASES for s in compare(bench, name) if s.metric != "skill"}
    rows = []
    for name, group, method, wanted in GOALS:
        score = found[name, group, method]
        simple = [s for s in found.values() if (s.data, s.group) == (name, group) and not s.method.startswith(TRAINED)]
        low_is_good = score.metric == "mae"
        best = (min if low_is_good else max)(simple, key=lambda s: s.value)
        met = score.value <= wanted if low_is_good else score.value >= wanted
        verdict = bench.goal(f"{name} {group}", met)
        rows.append([f"{name}, {group}", method, score.value, wanted, verdict, f"{best.method} {best.value:.4g}"])
    bench.table(["data, probe", "method", "found", "goal", "verdict", "best without learning, same run"], rows)
    bench.finish()


if __name__ == "__main__":
    main()
