"""What contrastive training does: energies of true answers against those of counter-examples."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from gridloom.core.system import Drawing
from gridloom.systems.energy.pictures.frame import check, few_ticks, finish, spread, stacked
from gridloom.viz.style import COLORS, COLUMN_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["info_nce"]

_BINS = 60
_PANELS = 3
_POSITIVE, _NEAR, _FAR = COLORS[0], COLORS[1], "#b4b4b4"
_BEYOND = 0.1
"""Share of the counter-examples that may lie in the last bin, so that a long tail does not squeeze the rest."""

Energies = Mapping[int, Shaped[np.ndarray, " _"]]


def info_nce(
    positive: Energies,
    negative: Energies,
    *,
    steps: Shaped[np.ndarray, " m"],
    loss: Shaped[np.ndarray, " losses"],
    separation: Shaped[np.ndarray, " separations"],
    guessing: float,
    distance: Energies | None = None,
    validation: Shaped[np.ndarray, " validations"] | None = None,
) -> Drawing:
    """Draw energies of true answers and counter-examples before, during and after training; loss and separation below.

    Args:
        positive: Energies of true answers by training step; of more than three steps the first, a middle and the last
            are drawn.
        negative: Energies of counter-examples by the same steps.
        steps: Steps of the curves.
        loss: InfoNCE at those steps, in nats.
        separation: Mean energy of counter-examples less that of true answers at those steps.
        guessing: InfoNCE of a constant energy, in nats: ln(1 + N) where N counter-examples are uniform.
        distance: Distance of each counter-example from the truth; splits them at the median into near and far.
        validation: Loss on held-out data at the same steps; NaN where there is none.

    Returns:
        Data: `snapshots` (their steps), `bins` (edges shared by all panels; the last bin
            holds all beyond), densities `positive`, `negative` and
        `near` [snapshots, bins], `gap` (difference of the means), `overlap` (shared area, 0 to 1) and `auc` (chance
        that a counter-example has more energy than a true answer) of each snapshot, `steps`, `loss`, `separation`,
        `validation`, `guessing`.

    Raises:
        DataError: Arrays that do not belong together.
    """
    _check(positive, negative, distance)
    curves = {"losses": loss, "separations": separation}
    if validation is not None:
        curves["validation losses"] = validation
    for name, curve in curves.items():
        check(len(curve) == len(steps) > 0, f"{len(steps)} {name}, one or more", len(curve))
    order = sorted(positive)
    data = _histograms(positive, negative, distance, [order[number] for number in spread(len(order), _PANELS)])
    data |= {"steps": steps, "loss": loss, "separation": separation, "guessing": np.array(guessing)}
    if validation is not None:
        data["validation"] = validation
    count = len(data["snapshots"])
    with style():
        made = figure(width_cm=COLUMN_CM, height_cm=5.6 + 2.1 * count)
        upper, lower = stacked(made, [0.9 + 2.1 * count, 4.7])
        panels = upper.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for number, axes in enumerate(panels):
            _histogram(axes, data, number, split=distance is not None)
        panels[-1].set_xlabel("energy E(x, y)")
        upper.supylabel("density (square-root scale)", fontsize=7.5)
        handles, labels = panels[0].get_legend_handles_labels()
        upper.legend(handles, labels, loc="outside upper center", ncols=3, columnspacing=1.0)
        left, right = lower.subplots(1, 2)
        _loss(left, data)
        right.plot(steps, separation, color=COLORS[2])
        right.set_ylabel("separation")
        for axes in (left, right):
            for step in data["snapshots"]:
                axes.axvline(float(step), color="#999999", linewidth=0.6, linestyle=":", zorder=1)
            axes.set_xlabel("step")
            few_ticks(axes, x=3, y=5)
        finish(made)
    near = f", those within {data['near_limit']:.3g} of the truth near" if distance is not None else ""
    caption = (
        f"Energies of true answers and counter-examples (negatives{near}) at steps "
        f"{', '.join(map(str, data['snapshots']))}; areas of 1, shared bins, the last one holds all beyond. Below: "
        f"InfoNCE against what guessing costs, {guessing:.2f} nats, and the difference of the mean energies; "
        "dotted lines are the steps above."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _histograms(
    positive: Energies, negative: Energies, distance: Energies | None, shown: list[int]
) -> dict[str, np.ndarray]:
    """Densities with shared bins, and how well each pair is separated."""
    low = min(float(min(positive[step].min(), negative[step].min())) for step in shown)
    high = max(float(max(positive[step].max(), np.quantile(negative[step], 1 - _BEYOND))) for step in shown)
    bins = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    width = np.diff(bins)
    limit = np.median(np.concatenate([distance[step] for step in shown])) if distance is not None else np.nan
    rows: dict[str, list[Any]] = {name: [] for name in ("positive", "negative", "near", "gap", "overlap", "auc")}
    for step in shown:
        above, below = negative[step].astype(np.float64), positive[step].astype(np.float64)
        first, second = (np.histogram(np.minimum(part, high), bins)[0] / (part.size * width) for part in (below, above))
        close = distance[step] <= limit if distance is not None else np.zeros(above.size, dtype=bool)
        rows["positive"].append(first)
        rows["negative"].append(second)
        rows["near"].append(np.histogram(np.minimum(above[close], high), bins)[0] / (above.size * width))
        rows["gap"].append(above.mean() - below.mean())
        rows["overlap"].append((np.minimum(first, second) * width).sum())
        rows["auc"].append(_auc(below, above))
    made = {name: np.array(row) for name, row in rows.items()}
    return made | {"bins": bins, "snapshots": np.array(shown), "near_limit": np.array(limit)}


def _auc(below: np.ndarray, above: np.ndarray) -> float:
    """Chance that one of `above` is greater than one of `below`; ties count half."""
    ordered = np.sort(below)
    less = np.searchsorted(ordered, above, side="left") + np.searchsorted(ordered, above, side="right")
    return float(less.mean() / (2 * below.size))


def _histogram(axes: Axes, data: Mapping[str, np.ndarray], number: int, *, split: bool) -> None:
    """One step: counter-examples as an area (the near ones below the others), true answers as an outline."""
    bins = data["bins"]
    near, all_of_them, true = data["near"][number], data["negative"][number], data["positive"][number]
    name = "far negatives" if split else "negatives"
    axes.stairs(all_of_them, bins, baseline=near, fill=True, color=_FAR, label=name)
    if split:
        axes.stairs(near, bins, fill=True, color=_NEAR, alpha=0.75, label="near negatives")
    axes.stairs(true, bins, color=_POSITIVE, linewidth=1.3, label="true")
    axes.set_title(
        f"step {data['snapshots'][number]}: gap {data['gap'][number]:.2f}, AUC {data['auc'][number]:.3f}, "
        f"overlap {data['overlap'][number]:.2f}",
        loc="left",
    )
    axes.margins(x=0.01)
    axes.set_yscale("function", functions=(lambda v: np.sqrt(np.maximum(v, 0)), np.square))  # so that tails are seen
    axes.set_ylim(0, 1.05 * float(max(near.max(), all_of_them.max(), true.max())))
    few_ticks(axes, x=6, y=2)


def _loss(axes: Axes, data: Mapping[str, np.ndarray]) -> None:
    """The loss, what guessing costs, and the loss on held-out data."""
    chance = float(data["guessing"])
    axes.plot(data["steps"], data["loss"], color=COLORS[0], label="training")
    if "validation" in data:
        known = np.isfinite(data["validation"])
        axes.plot(data["steps"][known], data["validation"][known], color=COLORS[3], linestyle="--", label="held out")
    axes.axhline(chance, color="#444444", linestyle="-.", linewidth=0.9, label=f"guessing: {chance:.2f}")
    axes.set_ylabel("InfoNCE [nats]")
    axes.set_ylim(top=max(axes.get_ylim()[1], chance) * 1.3)  # room for the legend
    axes.legend(loc="upper right", borderaxespad=0.1, labelspacing=0.25)


def _check(positive: Energies, negative: Energies, distance: Energies | None) -> None:
    """Refuse what does not belong together."""
    check(
        bool(positive) and sorted(positive) == sorted(negative),
        f"negatives at steps {sorted(positive)}",
        sorted(negative),
    )
    check(all(part.size for part in (*positive.values(), *negative.values())), "energies at each step", "none at one")
    if distance is not None:
        fits = all(step in distance and distance[step].shape == negative[step].shape for step in negative)
        wanted = {step: len(part) for step, part in negative.items()}
        check(fits, f"a distance for each negative {wanted}", {step: len(part) for step, part in distance.items()})
