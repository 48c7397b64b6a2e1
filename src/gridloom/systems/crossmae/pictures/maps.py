"""Weights of the encoder's feature maps."""

from collections.abc import Mapping, Sequence

import numpy as np

from gridloom.core.system import Drawing
from gridloom.viz.scale import color_scale
from gridloom.viz.style import COLUMN_CM, FULL_CM, figure, style

__all__ = ["draw_maps"]

_CELL_CM = 1.1
_MOST_NUMBERS = 9
_DARK = 0.6


def draw_maps(weights: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]]) -> Drawing:
    """Draw what each decoder layer takes of each feature map.

    Args:
        weights: [decoder layers, feature maps] by modality.
        labels: Names of the feature maps by modality.

    Returns:
        Data: the weights by modality.
    """
    from matplotlib.cm import ScalarMappable

    scale = color_scale(list(weights.values()), center=0, clip=0.0)
    reach = float(scale.norm.vmax or 1.0)
    across = min(2, len(weights))
    down = -(-len(weights) // across)
    depth = max(len(one) for one in weights.values())
    with style():
        made = figure(
            width_cm=COLUMN_CM if across == 1 else FULL_CM, height_cm=2.4 + down * (1.3 + 0.55 * max(depth, 2))
        )
        panels = made.subplots(down, across, squeeze=False).ravel()
        for axes in panels[len(weights) :]:
            axes.set_axis_off()
        for axes, (name, one) in zip(panels, weights.items(), strict=False):
            axes.imshow(one, norm=scale.norm, cmap=scale.cmap, aspect="auto")
            axes.set_xticks(range(one.shape[1]), labels[name], rotation=30 if one.shape[1] > 5 else 0)
            axes.set_yticks(range(len(one)), [f"layer {number}" for number in range(1, len(one) + 1)])
            axes.tick_params(length=0)
            axes.set_title(name.replace("_", " "))
            if one.shape[1] <= _MOST_NUMBERS:
                for (row, column), value in np.ndenumerate(one):
                    color = "white" if abs(value) > _DARK * reach else "#222222"
                    axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=color, fontsize=6.5)
        made.supylabel("decoder", fontsize=7.5)
        made.supxlabel("feature map of the encoder", fontsize=7.5)
        bar = made.colorbar(ScalarMappable(scale.norm, scale.cmap), ax=list(panels), label="weight", fraction=0.04)
        bar.outline.set_linewidth(0.4)
    caption = "Weights of the encoder's feature maps in what each layer of the decoder attends to, as they were learnt."
    return Drawing(figure=made, caption=caption, data=dict(weights))
