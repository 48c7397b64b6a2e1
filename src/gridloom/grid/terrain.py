"""A made-up island: where its land lies, how high it is, and catchments that differ in what they are made of."""

from dataclasses import dataclass

import numpy as np

from gridloom.core.errors import DataError

__all__ = ["ATTRIBUTES", "Catchments", "Terrain", "make_catchments", "make_terrain"]

ATTRIBUTES = {
    "area": "km2",
    "elevation": "m",
    "slope": "m km-1",
    "base_flow_index": "1",
    "clay": "1",
    "forest": "1",
    "urban": "1",
    "lake": "1",
}
"""Static attributes that govern a catchment, with their units."""

_SHARE_OF_PATCHES = 0.18  # 94 of 522
_SHARE_OF_CELLS = 0.8  # of the cells of a patch that has land, on average
_SOUTH, _NORTH, _WEST, _EAST = 48.0, 62.5, -9.5, 3.1
_KM_PER_DEGREE = np.array([111.2, 63.4])  # north; east at 55 degrees
_COAST = np.array([
    (50.1, -5.7), (50.0, -5.2), (50.2, -3.7), (50.7, -2.9), (50.6, -1.3), (50.7, 0.3), (51.1, 1.4), (51.5, 0.7),
    (52.5, 1.8), (53.0, 1.3), (52.9, 0.3), (53.6, 0.1), (54.5, -0.6), (55.0, -1.4), (55.8, -2.0), (56.0, -3.3),
    (56.3, -2.6), (57.2, -2.1), (57.7, -2.0), (57.6, -4.1), (58.6, -3.1), (58.6, -5.0), (57.9, -5.5), (57.3, -6.6),
    (56.7, -6.2), (55.3, -5.8), (55.8, -4.9), (54.7, -5.1), (54.9, -3.4), (54.5, -3.6), (54.1, -2.9), (53.4, -3.1),
    (53.4, -4.5), (52.8, -4.7), (52.4, -4.1), (51.9, -5.3), (51.4, -3.2), (51.5, -2.7), (51.2, -3.5), (51.0, -4.5),
])  # fmt: skip
_HILLS = np.array([
    # latitude, longitude, radius in km, height in m
    (57.0, -4.5, 75, 800), (55.3, -3.2, 60, 400), (54.5, -2.8, 45, 550), (52.6, -3.7, 50, 550), (50.6, -3.9, 25, 400),
])  # fmt: skip


@dataclass(frozen=True, eq=False)
class Terrain:
    """Land, cell by cell; per cell means per cell of land, row by row."""

    latitude: np.ndarray
    """Degrees north of the grid's rows."""
    longitude: np.ndarray
    """Degrees east of the grid's columns."""
    land: np.ndarray
    """Rows by columns, True on land."""
    position: np.ndarray
    """Kilometers north and east, per cell."""
    elevation: np.ndarray
    """Meters, per cell."""
    slope: np.ndarray
    """Meters per kilometer, per cell."""
    clay: np.ndarray
    """Share of clay in the ground, per cell; clay holds more water, and lets it go more slowly."""

    @property
    def cell_latitude(self) -> np.ndarray:
        """Degrees north, per cell."""
        return np.asarray(self.latitude[np.nonzero(self.land)[0]])


@dataclass(frozen=True, eq=False)
class Catchments:
    """Places where water is measured, and the land it comes from."""

    latitude: np.ndarray
    """Degrees north of each place."""
    longitude: np.ndarray
    """Degrees east of each place."""
    weights: np.ndarray
    """Places by cells of land; a row sums to 1, so that a product with it is the mean over the catchment."""
    attributes: dict[str, np.ndarray]
    """Each of `ATTRIBUTES`, per place."""


def make_terrain(generator: np.random.Generator, *, height: int, width: int, patch: int) -> Terrain:
    """Make land in the outline of Great Britain that fills a fixed share of the patches.

    The patches that lie highest above the coast line, which is roughened, are the ones with land: 94 of 29 x 18, and
    always 18 %. Inside them the cells that lie lowest are sea.

    Raises:
        DataError: A grid that is not made of whole patches.
    """
    if min(height, width, patch) < 1 or height % patch or width % patch:
        raise DataError(f"patch: expected one that divides {height} x {width} cells, got {patch}")
    latitude = _SOUTH + (np.arange(height) + 0.5) * (_NORTH - _SOUTH) / height
    longitude = _WEST + (np.arange(width) + 0.5) * (_EAST - _WEST) / width
    position = _kilometers(np.stack(np.meshgrid(latitude, longitude, indexing="ij"), axis=-1).reshape(-1, 2))
    inland = _inside(position) + 15 * _texture(generator, position, shortest=30.0, longest=200.0)
    land = _choose_land(inland.reshape(height, width), patch)
    rise = np.clip((inland + 30) / 60, 0.1, 1)
    elevation = (
        rise * (_hills(position) + 70) * np.exp(0.3 * _texture(generator, position, shortest=30.0, longest=150.0))
    )
    elevation = np.where(land, elevation.reshape(height, width), 0)
    # an axis of one cell has no neighbors, and no slope along it
    spacing = np.array([_NORTH - _SOUTH, _EAST - _WEST]) * _KM_PER_DEGREE / land.shape
    rises = [np.gradient(elevation, spacing[axis], axis=axis) for axis in (0, 1) if land.shape[axis] > 1]
    # high ground is rough below the size of a cell, too
    slope = np.sqrt(sum((rise**2 for rise in rises), (0.02 * elevation) ** 2))
    clay = np.clip(0.28 + 0.1 * _texture(generator, position, shortest=80.0, longest=500.0), 0.05, 0.6)
    return Terrain(
        latitude=latitude,
        longitude=longitude,
        land=land,
        position=position[land.reshape(-1)],
        elevation=elevation[land],
        slope=slope[land],
        clay=clay[land.reshape(-1)],
    )


def make_catchments(generator: np.random.Generator, terrain: Terrain, *, num_places: int) -> Catchments:
    """Place catchments on the land, with a mean over cells that fades out with distance from their middle.

    Elevation, slope and clay are the catchment's means of the land. Where there is clay, less water goes by the ground.
    """
    middle = terrain.position[generator.integers(len(terrain.position), size=num_places)]
    area = np.clip(150 * np.exp(generator.normal(size=num_places)), 10, 5000)
    distance = ((middle[:, None] - terrain.position[None]) ** 2).sum(axis=-1)
    weights = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / (area / np.pi)[:, None])
    weights /= weights.sum(axis=1, keepdims=True)
    clay = weights @ terrain.clay
    ground = 0.55 - 1.0 * (clay - 0.28) + 0.15 * generator.normal(size=num_places)
    return Catchments(
        latitude=_SOUTH + middle[:, 0] / _KM_PER_DEGREE[0],
        longitude=_WEST + middle[:, 1] / _KM_PER_DEGREE[1],
        weights=weights,
        attributes={
            "area": area,
            "elevation": weights @ terrain.elevation,
            "slope": weights @ terrain.slope,
            "base_flow_index": np.clip(ground, 0.1, 0.95),
            "clay": clay,
            "forest": generator.beta(1.5, 5, size=num_places),
            "urban": generator.beta(0.6, 6, size=num_places),
            "lake": generator.beta(0.5, 20, size=num_places),
        },
    )


def _kilometers(degrees: np.ndarray) -> np.ndarray:
    return np.asarray((degrees - (_SOUTH, _WEST)) * _KM_PER_DEGREE)


def _inside(position: np.ndarray) -> np.ndarray:
    """Distance from the coast in km, positive inside: the nearest of all edges, with the even-odd rule for the sign."""
    coast = _kilometers(_COAST)
    nearest, inside = np.full(len(position), np.inf), np.zeros(len(position), dtype=bool)
    for start, end in zip(coast, np.roll(coast, -1, axis=0), strict=True):
        along = end - start
        share = np.clip((position - start) @ along / (along @ along), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(position - start - share[:, None] * along, axis=1))
        if along[0]:
            crossing = start[1] + (position[:, 0] - start[0]) / along[0] * along[1]
            inside ^= ((start[0] > position[:, 0]) != (end[0] > position[:, 0])) & (position[:, 1] < crossing)
    return np.where(inside, nearest, -nearest)


def _choose_land(inland: np.ndarray, patch: int) -> np.ndarray:
    """Rows by columns: True on land."""
    rows, columns = inland.shape[0] // patch, inland.shape[1] // patch
    patches = inland.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows * columns, patch * patch)
    count = max(1, round(_SHARE_OF_PATCHES * len(patches)))
    chosen = np.argsort(-patches.mean(axis=1), kind="stable")[:count]
    cells = patches[chosen]
    land = np.zeros(patches.shape, dtype=bool)
    # the highest cell of a patch is land in any case, or the patch would be lost
    land[chosen] = (cells >= np.quantile(cells, 1 - _SHARE_OF_CELLS)) | (cells == cells.max(axis=1, keepdims=True))
    return land.reshape(rows, columns, patch, patch).swapaxes(1, 2).reshape(inland.shape)


def _hills(position: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(position[:, None] - _kilometers(_HILLS[:, :2])[None], axis=-1)
    return np.asarray(np.exp(-0.5 * (distance / _HILLS[:, 2]) ** 2) @ _HILLS[:, 3])


def _texture(generator: np.random.Generator, position: np.ndarray, *, shortest: float, longest: float) -> np.ndarray:
    """Sum of plane waves of all directions: mean 0, variance 1, with wavelengths in km."""
    num_waves = 40
    length = np.exp(generator.uniform(np.log(shortest), np.log(longest), size=num_waves))
    angle, phase = generator.uniform(0, 2 * np.pi, size=(2, num_waves))
    waves = 2 * np.pi / length * np.stack([np.sin(angle), np.cos(angle)])
    return np.asarray(np.cos(position @ waves + phase).sum(axis=1) / np.sqrt(num_waves / 2))
