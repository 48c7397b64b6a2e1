"""Made-up examples: squares on white, bumps and levels in signals. Everything is a function of (seed, part)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from gridloom.core.errors import DataError
from gridloom.systems.energy.config import SIGNAL_LENGTH, DataConfig

__all__ = ["Examples", "bumps", "draw_squares", "generate", "levels"]

_WHITE = 255.0
_SIGNAL_NOISE = 0.05
_BUMP_WIDTH = 0.1
_LEAST_APART = 1.5  # edges of the square between the centers of two


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Inputs with their right answers, in data units.

    Attributes:
        images: [N, C, H, W] in 0..255 (or data units), or signals [N, L]; NaN is missing.
        answers: Right coordinates of each, [N, K, D]; NaN where there are fewer than K.
        chosen: Which of its answers an example shows in training, [N].
        places: Where each lies, by coordinate; for people and maps.
    """

    images: Float32[np.ndarray, "n *dims"]
    answers: Float32[np.ndarray, "n answers outputs"]
    chosen: np.ndarray
    places: dict[str, np.ndarray]


def generate(config: DataConfig, count: int, *, seed: int, part: str) -> Examples:
    """Make examples of a task; parts are independent of each other.

    Args:
        config: Task and sizes.
        count: How many.
        seed: Seed of the run.
        part: `train`, `validation` or `test`.

    Raises:
        DataError: Images too small for two squares that do not touch.
    """
    generator = np.random.default_rng([seed, ("train", "validation", "test").index(part)])
    if config.task == "signal":
        return _bumps(count, generator)
    if config.task == "branches":
        return _levels(count, generator)
    return _squares(config, count, generator)


def _squares(config: DataConfig, count: int, generator: np.random.Generator) -> Examples:
    """White images [N, 3, H, W] with green squares; the answer is a center as (row, column) in cells."""
    squares = 2 if config.task == "two_dots" else 1
    places = _places(config, (count, squares), generator)
    if squares == 2:
        for _ in range(1000):
            distance = np.abs(places[:, 0] - places[:, 1]).max(axis=1)
            close = distance < _LEAST_APART * config.square
            if not close.any():
                break
            places[close] = _places(config, (int(close.sum()), squares), generator)
        else:
            raise DataError(f"data.size {config.size} is too small for two squares of data.square {config.square}")
    chosen = generator.integers(0, squares, count)
    images = draw_squares(config, places)
    return Examples(images=images, answers=places.astype(np.float32), chosen=chosen, places={})


def draw_squares(config: DataConfig, places: Int64[np.ndarray, "n squares 2"]) -> Float32[np.ndarray, "n 3 h w"]:
    """White images with green squares around the given cells (row, column)."""
    half = config.square // 2
    images = np.full((len(places), 3, *config.size), _WHITE, dtype=np.float32)
    for image, centers in zip(images, places, strict=True):
        for row, column in centers:
            image[::2, row - half : row + half + 1, column - half : column + half + 1] = 0.0
    return images


def _places(config: DataConfig, shape: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    half, size = config.square // 2, np.array(config.size)
    if config.placement == "clipped":
        return np.clip(generator.integers(0, size, (*shape, 2)), half, size - 1 - half)
    return generator.integers(half, size - half, (*shape, 2))


def _bumps(count: int, generator: np.random.Generator) -> Examples:
    """Signals with a bump of random height at y in [-0.9, 0.9] of an axis from -1 to 1."""
    place = generator.uniform(-0.9, 0.9, count)
    height = generator.uniform(0.7, 1.3, count)
    return _signals(height[:, None] * bumps(place), place[:, None, None], np.zeros(count, dtype=np.int64), generator)


def bumps(place: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n length"]:
    """Signals without noise, with a bump of height 1 at each place of an axis from -1 to 1."""
    axis = np.linspace(-1, 1, SIGNAL_LENGTH)
    shapes: np.ndarray = np.exp(-0.5 * ((axis - place[:, None]) / _BUMP_WIDTH) ** 2)
    return shapes


def levels(level: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, "n length"]:
    """Signals without noise, constant at each level."""
    return np.repeat(level[:, None], SIGNAL_LENGTH, axis=1)


def _levels(count: int, generator: np.random.Generator) -> Examples:
    """Signals whose level is x in [0, 1]; +sqrt(x) and -sqrt(x) are right."""
    level = generator.uniform(0, 1, count)
    root = np.sqrt(level)
    answers = np.stack([root, -root], axis=1)[..., None]
    found = _signals(levels(level), answers, generator.integers(0, 2, count), generator)
    return Examples(images=found.images, answers=found.answers, chosen=found.chosen, places={"level": level})


def _signals(signals: np.ndarray, answers: np.ndarray, chosen: np.ndarray, generator: np.random.Generator) -> Examples:
    noisy = signals + _SIGNAL_NOISE * generator.standard_normal(signals.shape)
    return Examples(images=noisy.astype(np.float32), answers=answers.astype(np.float32), chosen=chosen, places={})
