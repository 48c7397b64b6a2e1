"""From trades in files to heatmaps, a small forecaster, its latents, and the minutes to come.

The trades are made up; put your own folder of CSV or Parquet files in their place. A model of a few steps knows little:
with `settings` left out and `preset="recommended"` it is a real one.
"""

import tempfile
from pathlib import Path

import gridloom
from gridloom.grid.events.synthetic import trade_days
from gridloom.grid.events.trade_files import write_trade_days

SETTINGS = {
    "data.window": 12,
    "data.stride": 30,
    "data.max_origins": 8,
    "model.latent_dim": 64,
    "model.widths": [8, 16, 32],
    "model.hidden": 32,
    "model.causal": {"kind": "transformer", "dim": 32, "depth": 1, "num_heads": 2, "window": 11},
    "train.steps": 5,
    "train.validate_every": 5,
    "train.validate_windows": 4,
}


def main() -> None:
    """Make trades, rasterize, train, encode, forecast."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        days = trade_days(1, 4, 0, trades_per_day=1500, bad_share=0.01, halted_share=0.0)
        write_trade_days(days, folder / "trades")
        days.closes.to_csv(folder / "closes.csv", index=False)

        result = gridloom.rasterize(folder / "trades", folder / "frames.zarr", reference=folder / "closes.csv")
        print("rows:", result.accounting.rows, "binned:", result.accounting.binned)

        config = gridloom.configure("heatmap", settings={"data.path": str(folder / "frames.zarr"), **SETTINGS})
        run = gridloom.train_system("heatmap", config, output=folder / "run", show=False)
        for score in run.scores:
            if score.metric == "mse" and score.group == "all":
                print(f"{score.method:20} {1e4 * score.value:.2f} x 1e-4")

        encoder = gridloom.SemanticEncoder.from_pretrained(run.folder)
        print("latents:", dict(encoder.encode_dataset(gridloom.open_grid(folder / "frames.zarr")).sizes))

        ahead = gridloom.forecast(folder / "frames.zarr", run.folder, 30, num_samples=8)
        print(ahead[["activity", "imbalance"]].to_dataframe()[["lead", "activity", "imbalance"]].head())


if __name__ == "__main__":
    main()
