"""How well coordinates are found: over the image, over training, over the number of examples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import (
    CROSS,
    INK,
    RING,
    Plane,
    border,
    check,
    cross,
    finish,
    key,
    plain_log,
    ring,
    stacked,
)
from gridloom.systems.energy.pictures.frame import side_bar as bar_beside
from gridloom.viz.scale import ColorScale
from gridloom.viz.style import COLORS, COLUMN_CM, SEQUENTIAL, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["convex_hull", "error_over_examples", "inside_hull", "train_2d"]

_MOST_CROSSES = 120
_MOST = 5.0
"""Upper end of the color scale of errors, in cells."""
_EXAMPLES = 3
_DASHES = ("-", "--", "-.", ":")
_SHAPES = "osD^v"

Examples = tuple[np.ndarray, np.ndarray, np.ndarray]
Curves = tuple[np.ndarray, np.ndarray, np.ndarray]


def train_2d(
    train: Shaped[np.ndarray, "n _"],
    test: Shaped[np.ndarray, "m _"],
    error: Shaped[np.ndarray, " errors"],
    *,
    size: tuple[int, int],
    examples: Examples,
    curves: Curves,
    explicit_error: Shaped[np.ndarray, " explicit_errors"] | None = None,
) -> Drawing:
    """Draw examples with answers, learning curves, the error of each test point over the image, and its distribution.

    Args:
        train: (row, column) of the training examples, from -1 to 1.
        test: Of the test examples.
        error: Of each test example, in cells.
        size: Rows and columns of the image.
        examples: Images [k, h, w, 3] or [k, h, w], their true places [k, 2] and the answers [k, 2]; the first three
            are drawn.
        curves: Steps, training loss in nats, mean error of held-out examples in cells (NaN where not measured).
        explicit_error: The same as `error` for a model trained with the squared error.

    Returns:
        Data: `train`, `test`, `error`, `explicit_error`, `hull` (corners, in order), `in_hull` of each test point,
        `steps`, `loss`, `validation`; `truth`, `answer` of the examples drawn; and for both models `mean`, `median`,
        `share` (below one cell) and `count` (how many) [models].

    Raises:
        DataError: Arrays that do not belong together.
    """
    _check(train, test, examples, curves)
    errors = {"energy": error} if explicit_error is None else {"energy": error, "squared error": explicit_error}
    for name, part in errors.items():
        check(len(part) == len(test), f"{len(test)} errors ({name})", len(part))
    plane = Plane.of(size)
    hull = convex_hull(train)
    data: dict[str, np.ndarray] = {"train": train, "test": test, "error": error, "hull": hull}
    data |= {"in_hull": inside_hull(test, hull), "steps": curves[0], "loss": curves[1], "validation": curves[2]}
    data |= {"truth": examples[1][:_EXAMPLES], "answer": examples[2][:_EXAMPLES]}
    if explicit_error is not None:
        data["explicit_error"] = explicit_error
    data["mean"] = np.array([part.mean() for part in errors.values()])
    data["median"] = np.array([np.median(part) for part in errors.values()])
    data["count"] = np.array([int((part < 1).sum()) for part in errors.values()])
    data["share"] = data["count"] / len(test)
    ratio = min(1.4, size[0] / size[1])
    heights = [2.65 * ratio + 1.9, 3.5, 4.0 * ratio + 2.0, 3.6]
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=sum(heights))
        parts = stacked(made, heights)
        _examples(parts[0], plane, examples)
        _curves(parts[1], data)
        _maps(parts[2], plane, data, errors)
        _distribution(parts[3], errors)
        finish(made)
    caption = (
        f"Test images with truth and answer; training loss and held-out error; error of {len(test)} test points where "
        f"they lie (one scale, {len(train)} training points as x if they are few, their convex hull dashed; red rings: "
        f"one cell or more); share of test points below an error."
    )
    return Drawing(figure=made, caption=caption, data=data)


def error_over_examples(
    examples: Shaped[np.ndarray, " n"],
    errors: Mapping[str, Shaped[np.ndarray, "_ _"]],
    *,
    unit: str = "cells",
) -> Drawing:
    """Draw the error against the number of training examples: median and range over seeds, a line per method.

    Args:
        examples: Numbers of examples, rising.
        errors: Test error by method, for each number (first axis) and seed; NaN where a seed is missing.
        unit: Of the errors.

    Returns:
        Data: `examples`, and `NAME_median`, `NAME_low`, `NAME_high` over the seeds, `NAME_seeds` (how many).

    Raises:
        DataError: Arrays that do not belong together, or a number of examples without any seed.
    """
    check(len(examples) > 0 and bool((np.diff(examples) > 0).all()), "numbers of examples that rise", examples.tolist())
    shapes = {name: list(part.shape) for name, part in errors.items()}
    fits = bool(shapes) and all(shape[0] == len(examples) for shape in shapes.values())
    check(fits, f"errors [{len(examples)}, seeds]", shapes)
    check(
        all(bool(np.isfinite(part).any(axis=1).all()) for part in errors.values()), "a seed everywhere", "none at one"
    )
    data: dict[str, np.ndarray] = {"examples": examples}
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=6.5)
        axes = made.add_subplot()
        for number, (name, part) in enumerate(errors.items()):
            middle, low, high = np.nanmedian(part, axis=1), np.nanmin(part, axis=1), np.nanmax(part, axis=1)
            data |= {f"{name}_median": middle, f"{name}_low": low, f"{name}_high": high}
            data[f"{name}_seeds"] = np.isfinite(part).sum(axis=1)
            color = COLORS[number % len(COLORS)]
            axes.fill_between(examples, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(
                examples, middle, color=color, linestyle=_DASHES[number % 4], marker=_SHAPES[number % 5], label=name
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(examples, [str(int(count)) for count in examples])
        axes.xaxis.minorticks_off()
        plain_log(axes.yaxis)
        axes.set_xlabel("training examples")
        axes.set_ylabel(f"test error [{unit}]")
        axes.grid(axis="y")
        made.legend(loc="outside upper left", ncols=2, columnspacing=1.0, handlelength=2.2)
        finish(made)
    caption = f"Test error [{unit}] against the number of training examples: median (line) and range (band) over seeds."
    return Drawing(figure=made, caption=caption, data=data)


def convex_hull(points: Shaped[np.ndarray, "n 2"]) -> Float[np.ndarray, "corners 2"]:
    """Corners of the convex hull in order (Andrew 1979, monotone chain); fewer than three if all lie on a line."""
    ordered = np.unique(np.asarray(points, dtype=np.float64), axis=0)
    if len(ordered) < 3:
        return ordered
    chains = []
    for direction in (ordered, ordered[::-1]):
        chain: list[np.ndarray] = []
        for point in direction:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains.append(chain[:-1])
    return np.array(chains[0] + chains[1])


def inside_hull(points: Shaped[np.ndarray, "m 2"], hull: Shaped[np.ndarray, "corners 2"]) -> Bool[np.ndarray, " m"]:
    """Whether points lie in a convex hull or on its edge; nothing lies in one of fewer than three corners."""
    if len(hull) < 3:
        return np.zeros(len(points), dtype=bool)
    turns = [_turn(start, end, points) for start, end in zip(hull, np.roll(hull, -1, axis=0), strict=True)]
    return np.asarray(np.min(turns, axis=0) >= -1e-12)


def _turn(start: np.ndarray, end: np.ndarray, points: np.ndarray) -> Any:
    """Greater than 0 where the way start, end, point turns left."""
    side, way = end - start, points - start
    return side[0] * way[..., 1] - side[1] * way[..., 0]


def _examples(made: Any, plane: Plane, examples: Examples) -> None:
    """Test images with truth and answer."""
    count = min(_EXAMPLES, len(examples[0]))
    panels = made.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0]
    for number, axes in enumerate(panels):
        truth, answer = plane.place(examples[1][number]), plane.place(examples[2][number])
        plane.image(axes, examples[0][number])
        cross(axes, truth[1], truth[0])
        ring(axes, answer[1], answer[0], size=9)
        axes.set_title(f"{plane.distance(examples[2][number], examples[1][number]):.2g} cells off")
        plane.name(axes, row=number == 0)
    key(made, {"truth": CROSS, "answer": RING}, columns=2)


def _curves(made: Any, data: Mapping[str, np.ndarray]) -> None:
    """Loss and held-out error over training."""
    left, right = made.subplots(1, 2, sharex=True)
    left.plot(data["steps"], data["loss"], color=COLORS[0], linewidth=0.9)
    left.set_ylabel("training loss [nats]")
    known = np.isfinite(data["validation"])
    right.plot(data["steps"][known], data["validation"][known], color=COLORS[2])
    right.set_yscale("log")
    plain_log(right.yaxis)
    right.set_ylabel("held-out error [cells]")
    few_ticks_x(left)
    for axes in (left, right):
        axes.set_xlabel("step", labelpad=1.5)


def few_ticks_x(axes: Axes) -> None:
    """At most three intervals along x."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=3))


def _maps(made: Any, plane: Plane, data: Mapping[str, np.ndarray], errors: Mapping[str, np.ndarray]) -> None:
    """Error of each test point where it lies."""
    scale = _error_scale()
    panels = made.subplots(1, len(errors), sharex=True, sharey=True, squeeze=False)[0]
    test, train = plane.place(data["test"]), plane.place(data["train"])
    hull = plane.place(np.concatenate([data["hull"], data["hull"][:1]]))
    size = float(np.clip(2500 / len(test), 4.0, 14.0))
    for number, (axes, (name, error)) in enumerate(zip(panels, errors.items(), strict=True)):
        plane.frame(axes)
        border(axes)
        bad = error >= 1
        look: dict[str, Any] = {"s": size, "cmap": scale.cmap, "norm": scale.norm}
        axes.scatter(test[~bad, 1], test[~bad, 0], c=error[~bad], edgecolors="#777777", linewidths=0.25, **look)
        axes.scatter(test[bad, 1], test[bad, 0], c=error[bad], edgecolors=COLORS[1], linewidths=0.6, **look)
        axes.plot(hull[:, 1], hull[:, 0], "--", color=INK, linewidth=0.9)
        if len(train) <= _MOST_CROSSES:
            cross(axes, train[:, 1], train[:, 0], size=4)
        axes.set_title(f"{name}\n{data['count'][number]}/{len(error)} ({data['share'][number]:.0%}) < 1 cell")
        plane.name(axes, row=number == 0)
    bar_beside(made, list(panels), scale, "error [cells]", orientation="horizontal", aspect=35, fraction=0.05, pad=0.03)
    entries: dict[str, Any] = {
        "training": {**CROSS, "markersize": 4},
        "hull": {"color": INK, "linestyle": "--"},
        "error of 1 or more": {**RING, "markersize": 4, "markeredgewidth": 0.8},
    }
    key(made, entries, columns=3)


def _error_scale() -> ColorScale:
    """0 to 5 cells, whatever is drawn, so that figures can be compared; dark is bad."""
    import matplotlib as mpl
    from matplotlib.colors import Normalize

    return ColorScale(norm=Normalize(0.0, _MOST), cmap=mpl.colormaps[f"{SEQUENTIAL}_r"], extend="max")


def _distribution(made: Any, errors: Mapping[str, np.ndarray]) -> None:
    """Share of test points below an error."""
    axes = made.add_subplot()
    least = min(float(part[part > 0].min()) if (part > 0).any() else 1.0 for part in errors.values())
    for number, (name, part) in enumerate(errors.items()):
        ordered = np.maximum(np.sort(part), least)
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step(ordered, share, where="post", color=COLORS[number], linestyle=_DASHES[number], label=name)
    axes.axvline(1.0, color="#999999", linestyle=":", linewidth=0.9)
    axes.set_xscale("log")
    plain_log(axes.xaxis)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("error [cells]", labelpad=1.5)
    axes.set_ylabel("share of test points")
    axes.legend(loc="center")


def _check(train: np.ndarray, test: np.ndarray, examples: Examples, curves: Curves) -> None:
    """Refuse what does not belong together."""
    for name, part in (("training", train), ("test", test)):
        check(part.ndim == 2 and part.shape[1] == 2 and len(part) > 0, f"{name} points [n >= 1, 2]", list(part.shape))
    images, truth, answer = examples
    fits = len(images) > 0 and images.ndim in (3, 4) and truth.shape == answer.shape == (len(images), 2)
    check(fits, f"truth and answers [{len(images)}, 2]", [truth.shape, answer.shape])
    sizes = [len(part) for part in curves]
    check(len(set(sizes)) == 1 and sizes[0] > 0, "steps, losses and held-out errors alike", sizes)
