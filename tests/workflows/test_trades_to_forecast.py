"""The whole way of system A: trades in files, heatmaps, a model, its latents, the minutes to come."""

from pathlib import Path

import numpy as np
import pytest

import gridloom
from gridloom.grid.events.synthetic import trade_days
from gridloom.grid.events.trade_files import write_trade_days

pytest.importorskip("pyarrow")

SETTINGS = {
    "data.window": 8,
    "data.stride": 40,
    "data.leads": [1, 3],
    "data.max_origins": 6,
    "data.fractions": [0.5, 0.25, 0.25],
    "data.num_samples": 3,
    "model.latent_dim": 32,
    "model.widths": [8, 16],
    "model.num_blocks": 1,
    "model.hidden": 16,
    "model.causal": {"kind": "transformer", "dim": 16, "depth": 1, "num_heads": 2, "window": 7},
    "model.local": {"width": 4, "depth": 1},
    "train.steps": 3,
    "train.validate_every": 3,
    "train.validate_windows": 4,
    "train.tensorboard": False,
}


def test_trades_become_heatmaps_a_model_latents_and_a_forecast(tmp_path: Path) -> None:
    days = trade_days(1, 4, 0, trades_per_day=600, bad_share=0.02, halted_share=0.0)
    write_trade_days(days, tmp_path / "trades")
    days.closes.to_csv(tmp_path / "closes.csv", index=False)
    result = gridloom.rasterize(tmp_path / "trades", tmp_path / "frames.zarr", reference=tmp_path / "closes.csv")
    accounting = result.accounting
    assert accounting.rows == (
        accounting.binned + accounting.out_of_session + accounting.unknown_side + accounting.invalid
        + accounting.duplicates + accounting.out_of_range + accounting.no_reference
    )  # fmt: skip
    frames = gridloom.open_grid(tmp_path / "frames.zarr")
    assert frames.sizes["time"] == 4 * 239 and frames["counts"].shape[-3:] == (2, 32, 32)

    config = gridloom.configure("heatmap", settings={"data.path": str(tmp_path / "frames.zarr"), **SETTINGS})
    run = gridloom.train_system("heatmap", config, output=tmp_path / "run", show=False, report=False)
    assert {"persistence", "slot mean", "ridge", "heatmap"} <= {score.method for score in run.scores}

    latents = gridloom.SemanticEncoder.from_pretrained(run.folder).encode_dataset(frames)
    assert latents.sizes["time"] == 4 * 239 and latents.sizes["feature"] == 32

    ahead = gridloom.forecast(tmp_path / "frames.zarr", run.folder, 239, num_samples=3, output=tmp_path / "ahead.nc")
    assert ahead["slot"].values.tolist() == list(range(239)), "the whole next day"
    assert np.isfinite(ahead["frames"]).all() and 0 <= float(ahead["frames"].min()) <= float(ahead["frames"].max()) <= 1
    assert ahead["frames_sample"].sizes["sample"] == 3
    assert (ahead["time"].values > frames["time"].values.max()).all()
    minutes = (np.diff(ahead["time"].values) / np.timedelta64(1, "m")).astype(int)
    assert set(minutes.tolist()) == {1, 4, 5, 91}, "lunch and the auctions are where they belong"
