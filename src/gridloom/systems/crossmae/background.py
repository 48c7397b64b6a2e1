"""Estimates that the model starts from, where data are few: kriging, EOFs, a Gaussian process, a line in time.

They are fitted to the training cells once, before a run (`fit_backgrounds`), and what was found is part of the resolved
configuration. Then they are computed anew from whatever may be seen.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gridloom.core.errors import ConfigError
from gridloom.evaluate.baselines.cubes import Axes, read_axes
from gridloom.evaluate.baselines.em import fit_em
from gridloom.evaluate.baselines.eof import choose_rank, fill_eof
from gridloom.evaluate.baselines.gaussian import condition, fit_separable
from gridloom.evaluate.baselines.interpolate import line_in_time
from gridloom.evaluate.baselines.kriging import fit_covariance, krige
from gridloom.evaluate.baselines.smooth import smooth_climatology
from gridloom.grid.normalize import Normalizer
from gridloom.systems.crossmae.config import BackgroundFit, BackgroundKind, CrossMAEConfig
from gridloom.systems.crossmae.estimate import Estimate
from gridloom.systems.crossmae.fields import Fields
from gridloom.systems.crossmae.holdout import hide_gaps

__all__ = ["Background", "fit_backgrounds", "order_backgrounds"]

_LOGGER = logging.getLogger(__name__)
_RADIUS = 2.0
_WINDOWS = 2  # parts of a large record that a covariance is fitted on
_DRAWS = 8  # for the spread of a Gaussian process, which the network sees and corrects
_FAR_BEHIND = 1.5
_FIT_SEED = 10_000  # other gaps than those that are held out


class Background:
    """Estimates every cell of the images of a record from the cells that may be seen."""

    def __init__(self, config: CrossMAEConfig, normalizer: Normalizer) -> None:
        """Take what was fitted.

        Args:
            config: Resolved configuration.
            normalizer: Brings values to normalized units.

        Raises:
            ConfigError: A background that was not fitted.
        """
        self.config, self.normalizer = config, normalizer
        for name, modality in config.modalities.items():
            if modality.kind == "image" and modality.target and name not in config.background.fitted:
                raise ConfigError(f"the background of {name!r} was not fitted; resolve the configuration first")

    def estimate(self, fields: Fields) -> dict[str, Estimate]:
        """Estimate the images; those that are no targets have no gaps to fill, and their own values as the estimate."""
        found = {}
        for name, modality in self.config.modalities.items():
            if modality.kind != "image":
                continue
            (variable,) = fields.variables(name)
            values = self.normalizer.apply(variable, fields.dataset[variable].values).astype(np.float64)
            fit = self.config.background.fitted.get(name, BackgroundFit())
            kinds = self.config.background.kinds if modality.target else ()
            found[name] = _estimate(values, cube_axes(fields, name), kinds, fit, len(self.config.background.kinds))
        return found


def _estimate(values: np.ndarray, axes: Axes, kinds: tuple[str, ...], fit: BackgroundFit, num_kinds: int) -> Estimate:
    observed = np.isfinite(values)
    if not observed.any():
        nothing = np.zeros(values.shape, dtype=np.float32)
        return Estimate(nothing, 1.0, np.zeros((*values.shape, num_kinds + 1), dtype=np.float32))
    base = smooth_climatology(values, axes=axes, radius=_RADIUS)
    scale = float((values - base)[observed].std()) or 1.0
    known = np.zeros((*values.shape, num_kinds + 1), dtype=np.float32)
    known[..., :num_kinds] = np.where(observed, (values - base) / scale, 0.0)[..., None]
    for place, kind in enumerate(kinds):
        mean, deviation = _fill(kind, values, axes, fit)
        mean = np.where(observed, values, mean)
        known[..., place] = np.where(np.isfinite(mean), (mean - base) / scale, 0.0)
        if place == 0:
            known[..., -1] = np.where(np.isfinite(deviation), deviation / scale, 0.0)
    return Estimate(base.astype(np.float32), scale, known)


def _fill(kind: str, values: np.ndarray, axes: Axes, fit: BackgroundFit) -> tuple[np.ndarray, np.ndarray]:
    """Estimate every missing cell that was ever observed, and its standard deviation (0 where not known)."""
    missing = ~np.isfinite(values) & np.isfinite(values).any(axis=0)
    if kind == "kriging":
        assert fit.kriging is not None
        return krige(values, missing, fit.kriging, axes=axes)
    if kind == "gaussian":
        assert fit.gaussian is not None
        return condition(values, fit.gaussian, missing, axes=axes, num_samples=_DRAWS)
    if kind == "em":
        assert fit.gaussian is not None
        learned = fit_em(values, fit.gaussian, missing, axes=axes)
        return condition(values, learned, missing, axes=axes, num_samples=_DRAWS)
    if kind == "eof":
        flat = values.reshape(len(values), -1)
        rank = min(fit.eof_rank, len(flat), int(np.isfinite(flat).any(0).sum()))
        return fill_eof(flat, rank).reshape(values.shape), np.zeros(values.shape)
    climatology = smooth_climatology(values, axes=axes, radius=_RADIUS)
    if kind == "climatology":
        return climatology, np.zeros(values.shape)
    return climatology + line_in_time(values - climatology, axes.times_of(values)), np.zeros(values.shape)


def cube_axes(fields: Fields, name: str) -> Axes:
    """What the axes of an image say."""
    (variable,) = fields.variables(name)
    return read_axes(fields.dataset[variable], fields.time, fields.dims(name)[2])


def fit_backgrounds(config: CrossMAEConfig, training: Fields, normalizer: Normalizer) -> dict[str, BackgroundFit]:
    """Find the scales of each background on gap-shaped cells of the training part.

    Args:
        config: Which backgrounds, and the shape of the gaps.
        training: Data without anything that is held out.
        normalizer: Fitted on them.
    """

    def hide(observed: np.ndarray, seed: int) -> np.ndarray:
        return hide_gaps(observed, config.data.gaps, config.data.gap_share, _FIT_SEED + seed)

    fitted: Mapping[str, BackgroundFit] = config.background.fitted
    found = dict(fitted)
    for name, modality in config.modalities.items():
        if modality.kind != "image" or not modality.target or name in found:
            continue
        (variable,) = training.variables(name)
        values = normalizer.apply(variable, training.dataset[variable].values).astype(np.float64)
        axes, fit = cube_axes(training, name), BackgroundFit()
        for kind in config.background.kinds:
            _LOGGER.info("background of %s: fitting %s", name, kind)
            if kind == "kriging":
                fit = replace(fit, kriging=fit_covariance(values, hide=hide, axes=axes))
            elif kind in ("gaussian", "em") and fit.gaussian is None:
                fit = replace(fit, gaussian=fit_separable(values, hide=hide, axes=axes, windows=_WINDOWS))
            elif kind == "eof":
                hidden = hide(np.isfinite(values), 0).reshape(len(values), -1)
                fit = replace(fit, eof_rank=choose_rank(values.reshape(len(values), -1), hidden).rank)
        found[name] = fit
    return found


def order_backgrounds(
    config: CrossMAEConfig, training: Fields, whole: Fields, held_out: Mapping[str, np.ndarray], normalizer: Normalizer
) -> tuple[BackgroundKind, ...]:
    """Put the background with the smallest error at validation cells first, and leave out those that are far behind.

    Args:
        config: With what was fitted.
        training: Data without anything that is held out.
        whole: Data with the validation cells.
        held_out: The validation cells, by modality.
        normalizer: Fitted on the training part.
    """
    kinds = config.background.kinds
    errors = dict.fromkeys(kinds, 0.0)
    for name, modality in config.modalities.items():
        if modality.kind != "image" or not modality.target or not held_out[name].any():
            continue
        (variable,) = training.variables(name)
        seen, truth = (
            normalizer.apply(variable, fields.dataset[variable].values).astype(np.float64)
            for fields in (training, whole)
        )
        axes, cells = cube_axes(training, name), held_out[name]
        found = {kind: _fill(kind, seen, axes, config.background.fitted[name])[0][cells] for kind in kinds}
        off = {kind: float(np.sqrt(np.nanmean(np.square(mean - truth[cells])))) for kind, mean in found.items()}
        _LOGGER.info(
            "background of %s: %s of a standard deviation off at validation cells",
            name,
            ", ".join(f"{kind} {value:.3f}" for kind, value in off.items()),
        )
        errors = {kind: errors[kind] + off[kind] / min(off.values()) for kind in kinds}
    ordered = sorted(kinds, key=lambda kind: errors[kind])
    return tuple(kind for kind in ordered if errors[kind] <= _FAR_BEHIND * errors[ordered[0]])
