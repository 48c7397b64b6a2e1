"""Pictures of fine-tuning: which classes are taken for which, or answers beside the truth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from gridloom.core.errors import DataError
from gridloom.core.system import Drawing, View
from gridloom.evaluate.compare import ALL
from gridloom.viz.style import COLORS, FULL_CM, SEQUENTIAL, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # matplotlib is imported where something is drawn
    Axes = Figure = Any

__all__ = ["confusion", "count_pairs", "scatter"]

_MOST_CLASSES = 25
_NUMBERS_UP_TO = 12


def confusion(view: View) -> Drawing | None:
    """How often each class is taken for each other, by the best baseline and by the model; None for numbers."""
    (label,) = view.task.truth.data_vars
    truth = view.task.truth[label].values
    if truth.dtype.kind == "f":
        return None
    classes, left_out = _classes_drawn(view.trained.config.classes, truth)
    shown = np.isin(truth, classes)
    methods = _first_and_last(view)
    counts = {
        method: count_pairs(truth[shown], view.predictions[method][label].values[shown], classes) for method in methods
    }
    titles = [f"{method}: {_score(view, method, 'accuracy'):.1f} % right" for method in methods]
    made = _draw_confusion([counts[method] for method in methods], classes, titles, str(label))
    caption = (
        f"Held-out windows by their class (rows) and the one they are given (columns), in percent of each row; "
        f"left {methods[0]}, right the model. {len(truth)} windows."
    )
    if left_out:
        caption += f" The {len(classes)} most frequent classes; {left_out} others are left out."
    return Drawing(figure=made, caption=caption, data={"classes": np.array(classes), **counts})


def _classes_drawn(classes: Sequence[str], truth: Shaped[np.ndarray, " samples"]) -> tuple[list[str], int]:
    """The most frequent classes in the order of the configuration, and how many are left out."""
    names = [*classes, *sorted(set(truth.tolist()) - set(classes))]
    often = sorted(names, key=lambda name: -int((truth == name).sum()))[:_MOST_CLASSES]
    return [name for name in names if name in often], len(names) - len(often)


def count_pairs(
    truth: Shaped[np.ndarray, " samples"], said: Shaped[np.ndarray, " samples"], classes: Sequence[str]
) -> Int64[np.ndarray, "truth said"]:
    """Count the windows of each class (rows) that are given each class (columns); classes not listed are dropped."""
    place = {name: index for index, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for true, given in zip(truth.tolist(), said.tolist(), strict=True):
        if true in place and given in place:
            counts[place[true], place[given]] += 1
    return counts


def _first_and_last(view: View) -> list[str]:
    """The best baseline and the model."""
    methods = list(view.predictions)
    if len(methods) < 2:
        raise DataError("a picture of labels needs the model and a baseline")
    return [methods[0], methods[-1]]


def _score(view: View, method: str, metric: str) -> float:
    return next(s.value for s in view.scores if (s.method, s.metric, s.group) == (method, metric, ALL))


def _draw_confusion(
    counts: Sequence[Int64[np.ndarray, "truth said"]], classes: Sequence[str], titles: Sequence[str], label: str
) -> Figure:
    with style():
        made = figure(width_cm=FULL_CM, height_cm=0.52 * FULL_CM)
        panels = made.subplots(1, len(counts), sharey=True, squeeze=False)[0]
        for axes, matrix, title in zip(panels, counts, titles, strict=True):
            share = 100.0 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            image = axes.imshow(share, cmap=SEQUENTIAL, vmin=0.0, vmax=100.0)
            if len(classes) <= _NUMBERS_UP_TO:
                _write_numbers(axes, share)
            rotation = 90 if max(map(len, classes)) > 3 else 0
            axes.set_xticks(range(len(classes)), classes, rotation=rotation)
            axes.set_yticks(range(len(classes)), classes)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel(f"{label}, as answered")
            axes.set_title(title)
        panels[0].set_ylabel(f"{label}, true")
        bar = made.colorbar(image, ax=panels, shrink=0.8, pad=0.02)
        bar.set_label("share of the row [%]")
        bar.outline.set_visible(False)
    return made


def _write_numbers(axes: Axes, share: Float64[np.ndarray, "truth said"]) -> None:
    """Write what rounds to 1 % or more, in white on dark cells."""
    for (row, column), value in np.ndenumerate(share):
        if value >= 0.5:
            color = "#222222" if value > 60 else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color=color)


def scatter(view: View) -> Drawing | None:
    """Answers over the truth, of the best baseline and of the model; None for classes."""
    (label,) = view.task.truth.data_vars
    truth = view.task.truth[label]
    if truth.dtype.kind != "f":
        return None
    methods = _first_and_last(view)
    said = {method: view.predictions[method][label].values for method in methods}
    unit = str(truth.attrs.get("units") or "1")
    in_unit = "" if unit == "1" else f" [{unit}]"
    with style():
        made = figure(width_cm=FULL_CM, height_cm=0.5 * FULL_CM)
        panels = made.subplots(1, 2, sharex=True, sharey=True)
        both = np.concatenate([truth.values, *said.values()])
        ends = [float(np.nanmin(both)), float(np.nanmax(both))]
        for axes, method, color in zip(panels, methods, (COLORS[1], COLORS[0]), strict=True):
            axes.plot(ends, ends, color="#888888", linewidth=0.6, zorder=1)
            size = float(np.clip(2000 / len(truth), 2, 12))
            axes.scatter(truth.values, said[method], s=size, color=color, alpha=0.6, linewidth=0, zorder=2)
            error = f"{_score(view, method, 'mae'):.3g}{'' if unit == '1' else f' {unit}'}"
            axes.set_title(f"{method}: mean absolute error {error}")
            axes.set_xlabel(f"{label}, true{in_unit}")
            axes.grid()
        panels[0].set_ylabel(f"{label}, as answered{in_unit}")
    caption = (
        f"Held-out windows: answer over truth, left {methods[0]}, right the model; on the line both agree. "
        f"{len(truth)} windows."
    )
    return Drawing(figure=made, caption=caption, data={"truth": truth.values, **said})
