"""A flickering video through the command line: 30 frames of a real clip, before and after, at full resolution.

Trains 200 steps on another video (`bunny`), adds independent flicker of 15 % of each channel's own deviation to frames
0 to 29 of `carphone`, writes them without loss, and calls `gridloom stabilize` in a process of its own. Optical flow is
OpenCV's, from the frames with flicker; how strong that is, is estimated. Error over the variance of the flicker in dB,
frames 8 to 29. The picture is benchmarks/results/temporal_video/calm.png. About 3 CPU minutes.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Bench

from gridloom.evaluate.flicker import error_db, temporal_variation_db
from gridloom.grid.read import open_grid
from gridloom.grid.video import VideoWriter

_FRAMES = 30
_LEVEL = 0.15


def command(*arguments: str) -> tuple[str, float]:
    """Call gridloom in a process of its own; returns what it printed, and seconds."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "gridloom", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"gridloom {' '.join(arguments)} failed: {done.stderr[-500:]}")
    return done.stdout, time.perf_counter() - started


def clip_with_flicker(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write the clip; returns clean and written frames from 0 to 1, and the variance that was written."""
    clean = open_grid("carphone")["frames"].values[:_FRAMES].astype(np.float32) / 255
    noise = np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    noisy = clean + _LEVEL * clean.std(axis=(0, 2, 3), keepdims=True) * noise
    pixels = (noisy * 255).round().clip(0, 255).astype(np.uint8)
    with VideoWriter(path, frames_per_second=30) as video:
        for frame in pixels:
            video.write(frame)
    written = pixels.astype(np.float32) / 255
    return clean, written, ((written - clean) ** 2).mean(axis=(0, 2, 3))


def measure(folder: str, steps: int) -> dict[str, Any]:
    """Train, stabilize in several ways, compare."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        clean, written, variance = clip_with_flicker(place / "shaky.avi")
        model = str(place / "run")
        _, seconds = command(
            *("train", "temporal", "carphone", "--preset", "video", "--data.also", "bunny", "--data.held-out"),
            *("--train.steps", str(steps), "--train.validate-every", str(steps), "--output", model),
        )
        found["training, s"] = seconds
        found["input"] = {"error": error_db(written, clean, variance), "variation": 0.0, "seconds": 0.0}
        for label, options in {
            "kalman": ("kalman",),
            "learned": (model, "--picture", f"{folder}/calm.png"),
            "learned, both ways": (model, "--mode", "bidirectional"),
        }.items():
            calm = place / f"{label.replace(' ', '-').replace(',', '')}.avi"
            said, seconds = command(
                *("stabilize", options[0], str(place / "shaky.avi"), "--output", str(calm), "--json"), *options[1:]
            )
            frames = open_grid(calm)["frames"].values.astype(np.float32) / 255
            found[label] = {
                "error": error_db(frames, clean, variance),
                "variation": temporal_variation_db(frames, written, clean, variance),
                "seconds": seconds,
                "said": json.loads(said),
            }
    found["flicker"] = float(np.sqrt(variance.mean()))
    return found


def main() -> None:
    """Measure and print."""
    bench = Bench(__file__, __doc__ or "", sources=("systems/temporal", "workflows/stabilize.py", "nn/warp.py"))
    bench.folder.mkdir(parents=True, exist_ok=True)
    found = bench.cell("carphone", measure, folder=str(bench.folder), steps=20 if bench.quick else 200)
    rows = []
    for label in ("input", "kalman", "learned", "learned, both ways"):
        one = found[label]
        said = one.get("said", {}).get("flicker")
        rows.append(
            [
                label,
                f"{one['error']:.2f}",
                f"{one['variation']:.2f}",
                "" if said is None else f"{said:.4f}",
                "" if not one["seconds"] else f"{one['seconds']:.1f}",
            ]
        )
    flicker = f"flicker found (true {found['flicker']:.4f})"
    bench.table(["filter", "error, dB", "variation, dB", flicker, "seconds, with start"], rows)
    whole = bench.goal("30 frames end to end", found["learned"]["said"]["frames"] == _FRAMES)
    better = bench.goal("learned better than the rule", found["learned"]["error"] < min(0.0, found["kalman"]["error"]))
    print(f"30 frames end to end: {whole}; learned better than the input and the rule: {better}")
    print(f"training: {found['training, s']:.0f} s; picture: {bench.folder / 'calm.png'}\n")
    bench.figure("filters", {label: found[label]["error"] for label in ("input", "kalman", "learned")})
    bench.finish()


if __name__ == "__main__":
    main()
