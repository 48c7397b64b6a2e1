"""Conditioning a Gaussian process with a separable covariance on all observations.

With K = Kt x Ks (Kronecker) the inverse is Q = inv(Kt) x inv(Ks), and what is hidden given what is observed has the
mean -inv(Quu) Quo z_o and the covariance inv(Quu) (Rue & Held 2005, theorem 2.3). Products with Q cost two small matrix
products, so that conjugate gradients find the exact estimate from all observations, not only from the nearest ones.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float64

from gridloom.core.errors import DataError
from gridloom.evaluate.baselines.separable import LearnedCovariance, SeparableCovariance, cut_tiles

__all__ = ["TileSolver"]

_KEPT = 16
"""Tiles whose matrices are kept from one solution to the next."""

_LIFT = 1e-5
"""Part that is added to the diagonal of a preconditioner."""


class TileSolver:
    """Conditions anomalies of one grid, tile by tile. The same cells are hidden in all that it is asked."""

    def __init__(
        self,
        covariance: SeparableCovariance | LearnedCovariance,
        steps: Float64[np.ndarray, " time"],
        places: Bool[np.ndarray, "y x"],
        *,
        periodic: bool,
        tolerance: float,
    ) -> None:
        """Cut the grid.

        Args:
            covariance: Over time and space.
            steps: Times in typical steps.
            places: Those that take part; with a learned covariance, at most those that it knows.
            periodic: Whether x closes a circle.
            tolerance: Relative residual; below 1e-4 all is done in float64.
        """
        self._learned = covariance if isinstance(covariance, LearnedCovariance) else None
        self.scales = covariance if isinstance(covariance, SeparableCovariance) else covariance.scales
        if self._learned is not None:
            if self._learned.places.shape != places.shape or (places & ~self._learned.places).any():
                raise DataError("expected places that the covariance was learned for, got others; learn it for all")
            places = self._learned.places
        self._steps, self._tolerance = steps, tolerance
        self._dtype = np.float64 if tolerance < 1e-4 else np.float32
        self._circle = places.shape[1] if periodic else 0
        self.tiles = list(cut_tiles(places, len(steps), periodic=periodic))
        if self._learned is not None and len(self._learned.over_space) != len(self.tiles):
            raise DataError("expected the number of times that the covariance was learned for, got another")
        self._factors: dict[int, tuple[Precision, Precision, Preconditioner]] = {}

    def solve(
        self, anomalies: Float64[np.ndarray, "time y x"], num_samples: int = 0, seed: int = 0
    ) -> tuple[Float64[np.ndarray, "time y x"], Float64[np.ndarray, "time y x"]]:
        """Observed anomalies with the conditional means of the others, and the conditional variances.

        Places of no tile have mean 0 and, as all cells without samples, the variance of any anomaly.
        """
        filled, variance = np.nan_to_num(anomalies), np.full(anomalies.shape, self.scales.variance)
        for number, part, solved in self._solve_tiles(anomalies, num_samples, seed, cores=True):
            self.tiles[number].put(filled, np.where(np.isnan(part), solved[0], part))
            if num_samples:
                square = np.square(solved[1:], dtype=np.float64).mean(axis=0)
                self.tiles[number].put(variance, self.scales.sill * square)
        return filled, variance

    def moments(
        self, anomalies: Float64[np.ndarray, "time y x"], num_samples: int, seed: int
    ) -> list[Float64[np.ndarray, "place place"]]:
        """Expected Z' inv(Kt) Z over the places of each tile, of the unknown whole field Z given what is observed."""
        found = []
        for number, part, solved in self._solve_tiles(anomalies, num_samples, seed, cores=False):
            whole = np.where(np.isnan(part), solved[:1], part)
            draws = np.sqrt(self.scales.sill / num_samples) * solved[1:]
            rows = np.concatenate([whole, draws]).astype(self._dtype)
            time = self._over_time(number)
            rotated = (time.root @ rows).reshape(-1, rows.shape[-1])
            found.append((rotated.T @ rotated).astype(np.float64))
        return found

    def over_space(self, number: int) -> Float64[np.ndarray, "place place"]:
        """Covariance over the places of a tile."""
        if self._learned is not None:
            return np.asarray(self._learned.over_space[number])
        return self.scales.over_space(self.tiles[number].y, self.tiles[number].x, circle=self._circle)

    def _over_time(self, number: int) -> "Precision":
        return Precision(self.scales.over_time(self._steps[self.tiles[number].times]), self._dtype)

    def _solve_tiles(
        self, anomalies: np.ndarray, num_samples: int, seed: int, *, cores: bool
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Number, anomalies [time, place] and hidden cells [1 + sample, time, place] of tiles: mean, then draws.

        With w from N(0, Q), the solution of Quu e = w_u has the covariance inv(Quu): draws of what is not known
        (Papandreou & Yuille 2010). Tiles with nothing hidden in their cores are left out if only cores count.
        """
        for number, tile in enumerate(self.tiles):
            part = tile.take(anomalies)
            hidden = np.isnan(part)
            if cores and not (hidden & tile.core).any():
                continue
            time, space, blocks = self._factor(number, hidden)
            known = np.nan_to_num(part).astype(self._dtype)[None]
            white = np.random.default_rng([seed, number]).standard_normal((num_samples, *part.shape))
            drawn = apply_roots(time, space, white.astype(self._dtype))
            right = np.concatenate([-apply(time, space, known), drawn])
            yield number, part, solve_hidden(time, space, hidden, right, blocks=blocks, tolerance=self._tolerance)

    def _factor(self, number: int, hidden: np.ndarray) -> "tuple[Precision, Precision, Preconditioner]":
        if number not in self._factors:
            if len(self._factors) >= _KEPT:
                self._factors.pop(next(iter(self._factors)))
            time, space = self._over_time(number), Precision(self.over_space(number), self._dtype)
            self._factors[number] = time, space, Preconditioner(time, space, hidden)
        return self._factors[number]


class Precision:
    """Inverse of a covariance matrix, and a root of it."""

    def __init__(self, covariance: Float64[np.ndarray, "size size"], dtype: type[np.floating]) -> None:
        """Factorize in float64, multiply in `dtype`."""
        from scipy.linalg import lapack

        root, _ = lapack.dtrtri(np.linalg.cholesky(covariance), lower=1)
        self.matrix: np.ndarray = (root.T @ root).astype(dtype)
        self.root: np.ndarray = root.astype(dtype)


class Preconditioner:
    """The blocks of Quu on its diagonal, one for each time, ready to be solved nearly: that is enough for a hint."""

    def __init__(self, time: Precision, space: Precision, hidden: Bool[np.ndarray, "time place"]) -> None:
        """Factorize."""
        from scipy.linalg import get_lapack_funcs

        factorize, self._solve = get_lapack_funcs(("potrf", "potrs"), dtype=space.matrix.dtype)
        self._blocks: list[tuple[int, np.ndarray, np.ndarray]] = []
        for number in np.flatnonzero(hidden.any(axis=1)):
            places = np.flatnonzero(hidden[number])
            block = time.matrix[number, number] * space.matrix.take(places, 0).take(places, 1)
            block[np.diag_indices(len(places))] *= 1 + _LIFT  # rounding must not make it indefinite
            self._blocks.append((int(number), places, factorize(block.T, overwrite_a=1)[0]))

    def solve(self, right: Float[np.ndarray, "case time place"]) -> Float[np.ndarray, "case time place"]:
        """Solve each time by itself."""
        solved = np.zeros_like(right)
        for number, places, factor in self._blocks:
            solved[:, number, places] = self._solve(factor, right[:, number, places].T)[0].T
        return np.asarray(solved)


def solve_hidden(
    time: Precision,
    space: Precision,
    hidden: Bool[np.ndarray, "time place"],
    right: Float[np.ndarray, "case time place"],
    *,
    blocks: Preconditioner,
    tolerance: float,
    iterations: int = 200,
) -> Float[np.ndarray, "case time place"]:
    """Solve Quu z = right at the hidden cells by conjugate gradients, preconditioned by what one time has for itself.

    Within a time the places are solved exactly, as neighbors determine each other almost; the rounds are for what
    times have to do with each other.

    Args:
        time: Precision over time.
        space: Precision over space.
        hidden: Unknown cells; all others are 0 in what is returned.
        right: Right-hand sides; only hidden cells count.
        blocks: Made for the same precisions and hidden cells.
        tolerance: Ends the rounds when the (preconditioned) residual is this part of what it was.
        iterations: Most rounds.
    """
    residual = right * hidden
    solution = np.zeros_like(residual)
    step = blocks.solve(residual)
    norm = np.einsum("ctp,ctp->c", residual, step)
    enough = tolerance**2 * norm
    for _ in range(iterations):
        if (norm <= enough).all():
            break
        moved = apply(time, space, step) * hidden
        curvature = np.einsum("ctp,ctp->c", step, moved)
        length = np.divide(norm, curvature, out=np.zeros_like(norm), where=curvature > 0)[:, None, None]
        solution += length * step
        residual -= length * moved
        scaled = blocks.solve(residual)
        previous, norm = norm, np.einsum("ctp,ctp->c", residual, scaled)
        step = scaled + np.divide(norm, previous, out=np.zeros_like(norm), where=previous > 0)[:, None, None] * step
    return np.asarray(solution)


def apply(time: Precision, space: Precision, cells: Float[np.ndarray, "case time place"]) -> np.ndarray:
    """Multiply by Q: inv(Kt) z inv(Ks)."""
    cases, times, places = cells.shape
    product = time.matrix @ (cells.reshape(-1, places) @ space.matrix).reshape(cases, times, places)
    return np.asarray(product)


def apply_roots(time: Precision, space: Precision, cells: Float[np.ndarray, "case time place"]) -> np.ndarray:
    """Turn white noise into draws from N(0, Q)."""
    cases, times, places = cells.shape
    drawn: np.ndarray = time.root.T @ (cells.reshape(-1, places) @ space.root).reshape(cases, times, places)
    return drawn
