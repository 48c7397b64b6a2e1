"""A clip with flicker: how strong it is, what a trained module makes of it, and what a Kalman filter does.

The clip is made up; put your own video, or a file of latents, in its place. A model of a few steps knows little: leave
`SETTINGS` out for a real one.
"""

import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

import gridloom

SETTINGS = {"data.flow": "none", "data.window": 6, "data.crop": 16, "train.steps": 20, "train.batch_size": 4}


def moving_waves(length: int = 32) -> xr.Dataset:
    """Waves that move right by half a cell a frame, with the flow that leads back."""
    rows, columns = np.mgrid[:24, :32]
    phase = columns - 0.5 * np.arange(length)[:, None, None]
    frames = np.stack([np.sin(0.4 * phase + 0.3 * rows), np.cos(0.25 * phase - 0.2 * rows)], axis=1)
    flow = np.zeros((length, 2, *rows.shape), np.float32)
    flow[:, 0] = -0.5
    return xr.Dataset(
        {
            "frames": (("time", "channel", "y", "x"), frames.astype(np.float32)),
            "flow": (("time", "component", "y", "x"), flow),
            "flow_next": (("time", "component", "y", "x"), -flow),
        }
    )


def main() -> None:
    """Make a clip, train, add flicker, take it out."""
    clean = moving_waves()
    noise = 0.3 * np.random.default_rng(0).standard_normal(clean.frames.shape).astype(np.float32)
    shaky = clean.assign(frames=clean.frames + noise)
    with tempfile.TemporaryDirectory() as name:
        clean.to_netcdf(Path(name) / "clean.nc")
        config = gridloom.configure("temporal", settings={"data.path": str(Path(name) / "clean.nc"), **SETTINGS})
        run = gridloom.train_system("temporal", config, output=Path(name) / "run", show=False)
        for model, mode in ((run.folder, "causal"), ("kalman", "causal"), ("kalman", "bidirectional")):
            calm = gridloom.stabilize(shaky, model, mode=mode)
            error = float(((calm.frames - clean.frames) ** 2)[4:].mean()) / 0.09
            found = float(calm.noise[-1].mean())
            print(f"{Path(model).name:7} {mode:14} error {10 * np.log10(error):6.2f} dB, flicker {found:.3f} of 0.3")


if __name__ == "__main__":
    main()
