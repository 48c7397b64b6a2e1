"""Pictures of the energy system drawn from a run: what it learned, on data that it has not seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gridloom.core.batch import Batch, Field
from gridloom.core.system import Drawing, View
from gridloom.systems.energy import pictures
from gridloom.systems.energy.config import EnergyConfig
from gridloom.systems.energy.data import ANSWERS, IMAGE, POSITION, ExampleSource, to_unit
from gridloom.systems.energy.descent import LangevinOptimizer
from gridloom.systems.energy.generate import bumps, draw_squares, levels
from gridloom.systems.energy.locate import Locator
from gridloom.systems.energy.loss import draw_negatives, info_nce, log_density
from gridloom.systems.energy.model import ConvMLP, KeypointEncoder
from gridloom.systems.energy.objective import Location
from gridloom.systems.energy.score import distances
from gridloom.systems.energy.search import (
    DerivativeFreeOptimizer,
    FromFeatures,
    Optimizer,
    PatternSearch,
    Trajectory,
)

__all__ = ["FIGURES"]

_GRID = 121
_FINE = 1921
"""Candidates along a line, so many that their spacing is not the error that is seen."""
_CURVE = 401
_CONTRASTED = 64
_LINE = 61
_LANDSCAPES = 2
_CLOUD = 400


@dataclass(frozen=True)
class _Scene:
    """A run whose pictures are drawn: its model, its held-out examples, its answers to them."""

    view: View
    config: EnergyConfig
    objective: Location
    source: ExampleSource

    @staticmethod
    def of(view: View) -> "_Scene":
        objective, source = view.trained.objective, view.prepared.sources[view.task.split]
        assert isinstance(objective, Location) and isinstance(source, ExampleSource)
        return _Scene(view, view.trained.config, objective, source)

    @property
    def is_plane(self) -> bool:
        """Whether answers are a row and a column of an image."""
        return self.config.data.coordinates == ("row", "column")

    @property
    def is_energy(self) -> bool:
        """Whether the model is an energy, with coordinates that a grid can cover."""
        return not isinstance(self.objective.model, ConvMLP) and len(self.config.data.coordinates) <= 2

    @property
    def answers(self) -> np.ndarray:
        """The model's answers to the test part in the coordinates' own units, [n, D]."""
        return np.asarray(self.view.predictions["energy"][POSITION].values, dtype=np.float64)

    @property
    def right(self) -> np.ndarray:
        """All right answers, [n, K, D]."""
        return np.asarray(self.view.task.truth[ANSWERS].values, dtype=np.float64)

    @property
    def errors(self) -> np.ndarray:
        """Distance of each answer to the nearest right one."""
        return distances(self.answers, self.right)

    def unit(self, values: np.ndarray) -> np.ndarray:
        """Coordinates from -1 to 1."""
        return to_unit(values, self.config.data.bounds).astype(np.float64)

    def batch(self, rows: np.ndarray) -> Batch:
        """Test examples."""
        return self.source.collate(rows.tolist(), 0)

    @torch.no_grad()
    def energies(self, image: Field, y: np.ndarray, objective: Location | None = None) -> np.ndarray:
        """Energies [B, N] of the same candidates [N, D] for each image."""
        objective = objective or self.objective
        model = objective.model
        assert not isinstance(model, ConvMLP)
        candidates = torch.from_numpy(y.astype(np.float32)).expand(len(image.values), -1, -1)
        return model.energy(objective.features(image), candidates).double().numpy()

    def shown(self, row: int) -> np.ndarray:
        """A test image as it is drawn: [h, w, 3] or [h, w], from 0 to 1, NaN where missing."""
        return _displayed(self.view.task.given[IMAGE].values[row])


def _displayed(image: np.ndarray) -> np.ndarray:
    if len(image) == 3:
        return np.moveaxis(image, 0, -1) / 255.0
    low, high = np.nanmin(image[0]), np.nanmax(image[0])
    shown: np.ndarray = (image[0] - low) / max(high - low, 1e-12)
    return shown


def _plane() -> np.ndarray:
    """Candidates of a grid over [-1, 1]^2, row by row."""
    axis = np.linspace(-1, 1, _GRID)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


_BOUNDS = np.array([[-1.0, -1.0], [1.0, 1.0]])


def _typical(errors: np.ndarray) -> int:
    """The example whose error is the median."""
    return int(np.argsort(errors, kind="stable")[len(errors) // 2])


def energy_curve(view: View) -> Drawing | None:
    """E(x, y) over y for the signals with the median and the worst error."""
    scene = _Scene.of(view)
    if not scene.is_energy or len(scene.config.data.coordinates) != 1 or not scene.config.data.is_signal:
        return None
    errors = scene.errors
    rows = np.array([_typical(errors), int(errors.argmax())])
    y = np.linspace(-1.1, 1.1, _CURVE)
    image = scene.batch(rows).fields[IMAGE]
    return pictures.energy_curve(
        y,
        scene.energies(image, y[:, None]),
        target=scene.right[rows][..., 0],
        bounds=np.array([-1.0, 1.0]),
        names=["median error", "worst error"],
        signal=image.values.numpy(),
    )


def energy_landscape(view: View) -> Drawing | None:
    """E over the image for test images with the median and the worst error."""
    scene = _Scene.of(view)
    if not (scene.is_energy and scene.is_plane):
        return None
    errors = scene.errors
    rows = np.array([_typical(errors), int(errors.argmax())])[:_LANDSCAPES]
    image = scene.batch(rows).fields[IMAGE]
    energy = scene.energies(image, _plane()).reshape(len(rows), _GRID, _GRID)
    located = Locator(view.trained).locate(view.task.given[IMAGE].values[rows])
    return pictures.energy_landscape(
        [scene.shown(row) for row in rows.tolist()],
        energy,
        bounds=_BOUNDS,
        target=scene.unit(scene.right[rows]),
        minimum=located.best.double().numpy(),
        second=located.second.double().numpy(),
    )


def soft_argmax(view: View) -> Drawing | None:
    """Feature maps of a test image, their softmax, and where it expects each keypoint."""
    scene = _Scene.of(view)
    encoder = scene.objective.encoder
    if not isinstance(encoder, KeypointEncoder):
        return None
    row = _typical(scene.errors) if scene.is_plane else 0
    image = scene.batch(np.array([row])).fields[IMAGE]
    with torch.no_grad():
        maps = encoder.maps(image.values, image.valid.expand_as(image.values))
        weights, expected = encoder.spatial.weights(maps), encoder.spatial(maps)
    return pictures.soft_argmax(
        scene.shown(row), maps[0].numpy(), weights[0].numpy(), expected=expected.view(-1, 2).double().numpy()
    )


def contrast(view: View) -> Drawing | None:
    """Energies of truths and uniform counter-examples of the validation part at the snapshots; loss and separation."""
    scene = _Scene.of(view)
    snapshots = view.snapshots()
    if not scene.is_energy or not snapshots:
        return None
    source = view.prepared.sources["validation"]
    batch = source.collate(list(range(min(_CONTRASTED, len(source)))), 0)
    target = batch.fields["target"].values
    bounds, loss = scene.objective.bounds, scene.config.loss
    uniform = draw_negatives(batch.key, target, bounds, loss.num_negatives)
    distance = ((uniform - target[:, None]) * scene.objective.half_range).norm(dim=-1)
    positive, negative = {}, {}
    with torch.no_grad():
        for step, objective in snapshots.items():
            assert isinstance(objective, Location) and not isinstance(objective.model, ConvMLP)
            features = objective.features(batch.fields[IMAGE])
            positive[step] = objective.model.energy(features, target[:, None]).flatten().numpy()
            negative[step] = objective.model.energy(features, uniform).flatten().numpy()
    steps, training, separation = _curve(view, "loss", "separation")
    held_out = dict(zip(*_curve(view, "loss", part="validation"), strict=True))
    return pictures.info_nce(
        positive,
        negative,
        steps=steps,
        loss=training,
        separation=separation,
        guessing=_guessing(batch, bounds, scene.config),
        distance=dict.fromkeys(snapshots, distance.flatten().numpy()),
        validation=np.array([held_out.get(step, np.nan) for step in steps.tolist()]),
    )


def _guessing(batch: Batch, bounds: Tensor, config: EnergyConfig) -> float:
    """InfoNCE of a constant energy, in nats."""
    target, loss = batch.fields["target"].values, config.loss
    negatives = draw_negatives(batch.key, target, bounds, loss.num_negatives, near_scales=loss.near_scales)
    y = torch.cat([target[:, None], negatives], dim=1)
    density = None
    if loss.near_scales and loss.correct_density:
        density = log_density(y, target, bounds, near_scales=loss.near_scales)
    nothing, true = torch.zeros(y.shape[:2]), torch.zeros(len(y), dtype=torch.int64)
    return float(info_nce(nothing, true, log_density=density).mean())


def _curve(view: View, *names: str, part: str = "train") -> tuple[np.ndarray, ...]:
    """Steps and recorded metrics of a part."""
    records = [record for record in view.metrics if record["part"] == part and all(name in record for name in names)]
    return tuple(np.array([record[name] for record in records]) for name in ("step", *names))


def optimization(view: View) -> Drawing | None:
    """How the searches find the minimum of a test image: resampled candidates, and progress of each search."""
    scene = _Scene.of(view)
    if not (scene.is_energy and scene.is_plane):
        return None
    row = _typical(scene.errors)
    image = scene.batch(np.array([row])).fields[IMAGE]
    with torch.no_grad():
        features = scene.objective.features(image)
    target = scene.unit(scene.right[row])
    target = target[np.isfinite(target).all(axis=1)]
    optimizer = DerivativeFreeOptimizer(num_samples=_CLOUD)
    path = _search(optimizer, scene, features)
    searches: dict[str, Optimizer] = {
        "derivative-free, 16384": DerivativeFreeOptimizer(),
        "Langevin, 256": LangevinOptimizer(),
        "pattern search": PatternSearch(),
    }
    noise = [0.0, *optimizer.noise_scales()]
    return pictures.optimization(
        scene.shown(row),
        scene.energies(image, _plane()).reshape(_GRID, _GRID),
        bounds=_BOUNDS,
        candidates=[part[0].double().numpy() for part in path.candidates],
        energies=[part[0].double().numpy() for part in path.energies],
        target=target,
        noise=noise,
        others={name: _progress(_search(search, scene, features), scene, target) for name, search in searches.items()},
    )


def _search(optimizer: Optimizer, scene: _Scene, features: Tensor) -> Trajectory:
    model = scene.objective.model
    assert not isinstance(model, ConvMLP)
    return optimizer.minimize(FromFeatures(model), features, scene.objective.bounds, keep_trajectory=True).trajectory


def _progress(path: Trajectory, scene: _Scene, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluations, best energy so far and its distance to the nearest target after each iteration."""
    half = scene.objective.half_range.double().numpy()
    counts, lows, far = [], [], []
    best, place = np.inf, np.zeros(2)
    for y, energies in zip(path.candidates, path.energies, strict=True):
        lowest = int(energies[0].argmin())
        if float(energies[0, lowest]) < best:
            best, place = float(energies[0, lowest]), y[0, lowest].double().numpy()
        counts.append(y.shape[1])
        lows.append(best)
        far.append(float(np.linalg.norm((target - place) * half, axis=1).min()))
    return np.cumsum(counts), np.array(lows), np.array(far)


def fusion(view: View) -> Drawing | None:
    """E for one image over all places, and for a square that moves along a row over candidates in that row."""
    scene = _Scene.of(view)
    data = scene.config.data
    if not (scene.is_energy and data.task == "dot"):
        return None
    row = _typical(scene.errors)
    surface = scene.energies(scene.batch(np.array([row])).fields[IMAGE], _plane())[0].reshape(_GRID, _GRID)
    middle, half = (data.size[0] - 1) // 2, data.square // 2
    columns = np.unique(np.linspace(half, data.size[1] - 1 - half, _LINE).round().astype(int))
    height = 2 * middle / (data.size[0] - 1) - 1
    candidates = np.stack([np.full(_FINE, height), np.linspace(-1, 1, _FINE)], axis=1)
    lines = {}
    for other in (scene, _beside(view)):
        if other is not None and other.is_energy:
            label = other.config.model.fusion
            lines[f"{label} (beside)" if label in lines else label] = other.energies(
                _moving_square(other, middle, columns), candidates
            )
    shown = view.prepared.history[POSITION].values
    return pictures.fusion(
        surface,
        lines,
        bounds=_BOUNDS,
        size=data.size,
        positions=2 * columns / (data.size[1] - 1) - 1,
        candidates=candidates[:, 1],
        train=scene.unit(shown)[:, 1],
        line="column",
    )


def _beside(view: View) -> _Scene | None:
    return _Scene.of(view.beside) if view.beside is not None else None


def _moving_square(scene: _Scene, middle: int, columns: np.ndarray) -> Field:
    """Images whose square lies in a row at each of the columns, as the model takes them."""
    places = np.stack([np.full(len(columns), middle), columns], axis=1)[:, None]
    images = Locator(scene.view.trained).normalize(draw_squares(scene.config.data, places))
    return Field.of(torch.from_numpy(images))


def train_1d(view: View) -> Drawing | None:
    """What the model says of every signal, at the snapshots: density over y, its minimum, and a regression beside."""
    scene = _Scene.of(view)
    data = scene.config.data
    snapshots = view.snapshots()
    if not (scene.is_energy and data.is_signal and snapshots):
        return None
    history = view.prepared.history
    branches = data.task == "branches"
    u = np.linspace(0, 1, 101) if branches else np.linspace(-0.9, 0.9, 101)
    clean = levels(u) if branches else bumps(u)
    image = Field.of(torch.from_numpy(clean.astype(np.float32)))
    y = np.linspace(-1, 1, 201)
    energy = {}
    for step, objective in snapshots.items():
        assert isinstance(objective, Location)
        energy[step] = scene.energies(image, y[:, None], objective)
    shown = history[POSITION].values[:, 0]
    level = history["level"].values if branches else shown
    beside = _beside(view)
    explicit = None
    if beside is not None and isinstance(beside.objective.model, ConvMLP):
        with torch.no_grad():
            explicit = beside.objective.answer(beside.objective.features(image))[:, 0].double().numpy()
    return pictures.train_1d(
        u,
        y,
        energy,
        train=(level, shown),
        curve=(_curve(view, "loss")[0], _curve(view, "loss")[1]),
        explicit=explicit,
        inside=(float(level.min()), float(level.max())),
        label="x" if branches else "place of the bump",
    )


def train_2d(view: View) -> Drawing | None:
    """Training, and the error of each test image where its target lies; a regression beside."""
    scene = _Scene.of(view)
    if not scene.is_plane:
        return None
    errors, right, answers = scene.errors, scene.right, scene.answers
    nearest = np.linalg.norm(answers[:, None] - right, axis=-1)
    place = np.where(np.isfinite(nearest), nearest, np.inf).argmin(axis=1)
    target = right[np.arange(len(right)), place]
    rows = np.linspace(0, len(right) - 1, 3).round().astype(int)
    steps, loss = _curve(view, "loss")
    held_out = dict(zip(*_curve(view, "error", part="validation"), strict=True))
    beside = _beside(view)
    comparable = beside is not None and len(beside.errors) == len(errors)
    return pictures.train_2d(
        scene.unit(view.prepared.history[POSITION].values),
        scene.unit(target),
        errors,
        size=scene.config.data.size,
        examples=(
            np.stack([scene.shown(row) for row in rows.tolist()]),
            scene.unit(target[rows]),
            scene.unit(answers[rows]),
        ),
        curves=(steps, loss, np.array([held_out.get(step, np.nan) for step in steps.tolist()])),
        explicit_error=beside.errors if beside is not None and comparable else None,
    )


FIGURES: Mapping[str, Callable[[View], Drawing | None]] = {
    "energy_curve": energy_curve,
    "energy_landscape": energy_landscape,
    "soft_argmax": soft_argmax,
    "info_nce": contrast,
    "optimization": optimization,
    "fusion": fusion,
    "train_1d": train_1d,
    "train_2d": train_2d,
}
"""The eight pictures by name; each is None for a run that it does not apply to."""
