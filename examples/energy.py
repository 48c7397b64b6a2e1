"""Find the highest place of windows of relief through noise and gaps, with an energy model; see how certain it is.

Runs in about a minute on a laptop: `python examples/energy.py`. The model is small and trained briefly; raise
`train.steps` for one that is of use.
"""

import numpy as np

import gridloom


def main() -> None:
    # Elevation in windows of 32x32 cells, noise of 0.3 deviations, 30 % of the cells hidden; split by longitude.
    settings = {"data.size": [32, 32], "train.steps": 60, "train.batch_size": 16, "train.validate_every": 30}
    config = gridloom.configure("energy", preset="summit", settings={**settings, "train.snapshots": [0, 60]})
    run = gridloom.train_system("energy", config, output="runs/summit", report=False)
    for score in run.scores:
        if score.metric == "median":
            print(f"{score.method:24} median error {score.value:.2f} {score.unit}s")

    # Every window of the globe: latitude and longitude of the minimum, how certain, and where else.
    found = gridloom.locate(run.folder, "etopo20", output="summits.csv")
    surest = int(np.nanargmin(found.spread.max("coordinate")))
    lat, lon = found.position.values[surest]
    print(f"the surest of {found.sizes['sample']} windows: {lat:.1f} N, {lon:.1f} E")

    # The pictures that explain the run, as PNG and SVG, with a gallery in figures/index.html.
    print(sorted(gridloom.draw_figures(run.folder, "energy_landscape", output="figures")))


if __name__ == "__main__":
    main()
