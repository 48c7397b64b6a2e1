"""Pictures of how good forecasts are: skill by lead, errors by slot, spread of totals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from gridloom.core.system import Drawing
from gridloom.evaluate.bootstrap import Estimate
from gridloom.viz.style import COLORS, FULL_CM, figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:  # matplotlib is imported where something is drawn
    Axes = Any

__all__ = ["Fan", "draw_skill", "draw_slots", "draw_spread"]

_LOWEST_SKILL = -0.5
_ACTIVITY = "#dcdcdc"
_MARKERS = "osD^vPX"


def draw_skill(
    skills: Mapping[str, Sequence[Estimate]], *, methods: Sequence[str], leads: Sequence[str], step: str
) -> Drawing:
    """Draw the skill of methods by lead, a panel for each reference.

    Args:
        skills: By reference: for each lead, of all methods.
        methods: Names, the model's last.
        leads: Labels of the leads.
        step: What a slot is, for people.

    Returns:
        Data: `REFERENCE METHOD` [lead, 3]: skill, lower and upper end.
    """
    data = {}
    with style():
        made = figure(width_cm=FULL_CM if len(skills) > 1 else 0.6 * FULL_CM, height_cm=7.0)
        panels = made.subplots(1, len(skills), squeeze=False)[0]
        for axes, (reference, estimates) in zip(panels, skills.items(), strict=True):
            axes.axhline(0.0, color="#888888", linewidth=0.6, zorder=1)
            shown = [name for name in methods if name != reference]
            for place, name in enumerate(shown):
                row = list(methods).index(name)
                values = np.array([[e.value[row], e.low[row], e.high[row]] for e in estimates])
                data[f"{reference} {name}"] = values
                x = np.arange(len(leads)) + 0.6 * ((place + 0.5) / len(shown) - 0.5)
                _skill_dots(axes, x, values, name, number=row, strong=name == methods[-1])
            lowest = min(float(np.nanmin(data[f"{reference} {name}"])) for name in shown)
            axes.set_ylim(bottom=min(max(lowest, _LOWEST_SKILL) - 0.05, 0.0))
            axes.set_xlim(-0.5, len(leads) - 0.5)
            axes.set_xticks(range(len(leads)), list(leads))
            axes.set_xlabel(f"lead [slots of {step}]" if step != "1 slot" else "lead [slots]")
            axes.set_ylabel(f"skill against {reference}")
            axes.grid(axis="y")
        told: dict[str, Any] = {}
        for axes in panels:
            told |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        order = [name for name in (methods[-1], *methods[:-1]) if name in told]
        made.legend([told[name] for name in order], order, loc="outside upper left", ncols=7)
    caption = (
        f"Skill 1 - MSE / MSE of {' and of '.join(skills)}, by lead, with intervals of 90 % of a paired bootstrap over "
        f"blocks of origins. Above 0 is better than the reference; what is below {_LOWEST_SKILL} is not shown."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _skill_dots(axes: Axes, x: np.ndarray, values: np.ndarray, name: str, *, number: int, strong: bool) -> None:
    color = COLORS[0] if strong else COLORS[1 + number % (len(COLORS) - 1)]
    axes.vlines(x, values[:, 1], values[:, 2], color=color, linewidth=2.0 if strong else 1.0)
    marker = "o" if strong else _MARKERS[1 + number % (len(_MARKERS) - 1)]
    axes.plot(x, values[:, 0], marker, color=color, ms=5 if strong else 3.5, label=name, zorder=3)


def draw_slots(
    edges: Shaped[np.ndarray, " edge"],
    mse: Mapping[str, Float[np.ndarray, " bin"]],
    activity: Float[np.ndarray, " bin"],
    *,
    ticks: tuple[Sequence[int], Sequence[str], str],
    unit: str,
    leads: str,
) -> Drawing:
    """Draw errors by slot of the frame that is forecast, over how much happens then.

    Args:
        edges: First slot of each bin, and the end of the last one.
        mse: Mean squared error of pixels, by method, the model's last; NaN where nothing was asked.
        activity: Mean number of events of a frame in the training part.
        ticks: Slots with a tick, their texts, and the name of the axis.
        unit: Unit of the activity.
        leads: The leads that are pooled, for people.
    """
    middle = (edges[1:] + edges[:-1] - 1) / 2
    with style():
        made = figure(width_cm=FULL_CM, height_cm=7.0)
        axes = made.add_subplot()
        behind = axes.twinx()
        behind.stairs(activity, edges - 0.5, fill=True, color=_ACTIVITY)
        behind.set_ylabel(unit, color="#777777")
        behind.tick_params(axis="y", colors="#777777", labelcolor="#777777")
        behind.spines["right"].set_visible(True)
        behind.set_ylim(0, 1.05 * max(float(np.nanmax(activity)), 1e-12))
        axes.set_zorder(behind.get_zorder() + 1)
        axes.patch.set_visible(False)
        model = list(mse)[-1]
        for number, (name, values) in enumerate(mse.items()):
            strong = name == model
            known = np.isfinite(values)
            axes.plot(
                middle[known],
                values[known] * 1e4,
                "-" if strong else "--",
                color=COLORS[0] if strong else COLORS[1 + number % (len(COLORS) - 1)],
                linewidth=1.6 if strong else 1.0,
                marker="o",
                ms=2.5,
                label=name,
                zorder=4 if strong else 3,
            )
        axes.set_ylim(bottom=0)
        axes.set_xlim(edges[0] - 0.5, edges[-1] - 0.5)
        if ticks[0]:
            axes.set_xticks(list(ticks[0]), list(ticks[1]))
        axes.set_xlabel(ticks[2])
        axes.set_ylabel("MSE [$10^{-4}$ squared pixels]")
        handles, labels = axes.get_legend_handles_labels()
        gray, label = behind.patches[0], f"{unit}, training part"
        made.legend([*handles, gray], [*labels, label], loc="outside upper left", ncols=5)
    caption = (
        f"Error by the slot of the frame that is forecast ({leads}), mean over its cells; in gray the mean "
        f"number of events of a frame in the training part."
    )
    return Drawing(figure=made, caption=caption, data={"edges": edges, "activity": activity, **mse})


@dataclass(frozen=True, kw_only=True)
class Fan:
    """Total counts of frames from one origin.

    Attributes:
        name: Of the channel.
        seen: Totals of the last frames seen.
        came: Totals that came; NaN where a slot did not happen.
        samples: Totals of sample paths, [sample, step].
    """

    name: str
    seen: Shaped[np.ndarray, " before"]
    came: Shaped[np.ndarray, " step"]
    samples: Shaped[np.ndarray, "sample step"]


def draw_spread(
    fans: Sequence[Fan],
    nominal: Shaped[np.ndarray, " level"],
    covered: Mapping[str, np.ndarray],
    *,
    hours: float,
    origin: str,
    unit: str,
) -> Drawing:
    """Draw how sample paths spread, and how often the truth lies within.

    Args:
        fans: One for each channel.
        nominal: Shares that intervals should hold.
        covered: Shares that they hold, by lead.
        hours: Distance of two frames in hours; NaN where it is not known.
        origin: Time of the last frame seen.
        unit: What is counted.

    Returns:
        Data: `CHANNEL seen`, `came` and `samples` (totals), `nominal`, and the shares by lead.
    """
    data: dict[str, np.ndarray] = {"nominal": nominal, **covered}
    factor, label = _steps(hours)
    with style():
        made = figure(width_cm=FULL_CM, height_cm=4.0 * max(len(fans), 2))
        left, right = np.asarray(made.subfigures(1, 2, width_ratios=(1.75, 1)))
        panels = left.subplots(len(fans), 1, sharex=True, squeeze=False)[:, 0]
        for axes, fan in zip(panels, fans, strict=True):
            before = np.arange(1 - len(fan.seen), 1) * factor
            after = np.arange(1, len(fan.came) + 1) * factor
            for low, high, alpha, name in ((5, 95, 0.18, "90 % of paths"), (25, 75, 0.35, "50 % of paths")):
                band = np.percentile(fan.samples, (low, high), axis=0)
                axes.fill_between(after, *band, color=COLORS[0], alpha=alpha, linewidth=0, label=name)
            axes.plot(after, np.median(fan.samples, axis=0), color=COLORS[0], label="median path")
            axes.plot(before, fan.seen, color="#999999", marker=".", ms=3, linewidth=0.8, label="seen")
            axes.plot(after, fan.came, color="black", marker=".", ms=4, linewidth=0.8, label="truth")
            axes.axvline(0.0, color=COLORS[1], linewidth=0.8)
            axes.set_ylabel(f"{fan.name}\n{unit}")
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.margins(x=0.01)
            for what, values in (("seen", fan.seen), ("came", fan.came), ("samples", fan.samples)):
                data[f"{fan.name} {what}"] = values
        panels[-1].set_xlabel(f"{label} after {origin}")
        left.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=5)
        _reliability(right.add_subplot(), nominal, covered)
    caption = (
        "Left: totals of the frames after one origin, in sample paths and in truth. Right: share of the totals of all "
        "origins and channels within the central interval of the sample paths, over the share that should be."
    )
    return Drawing(figure=made, caption=caption, data=data)


def _steps(hours: float) -> tuple[float, str]:
    if not np.isfinite(hours):
        return 1.0, "slots"
    return (hours, "hours") if hours >= 0.5 else (hours * 60, "minutes")


def _reliability(axes: Axes, nominal: np.ndarray, covered: Mapping[str, np.ndarray]) -> None:
    axes.plot([0, 1], [0, 1], color="#888888", linewidth=0.6)
    for number, (name, share) in enumerate(covered.items()):
        axes.plot(nominal, share, color=COLORS[(2 + number) % len(COLORS)], label=name)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("share that the interval should hold")
    axes.set_ylabel("share of totals within it")
    axes.grid()
    axes.text(0.04, 0.96, "intervals too wide", va="top", color="#666666", fontsize=7)
    axes.text(0.96, 0.04, "too narrow", ha="right", color="#666666", fontsize=7)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 0.92))
