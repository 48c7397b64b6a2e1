"""Run the Python blocks of the README, then every example, each as a newcomer would: in an empty folder.

The blocks of one page share their names, in order. A block that is not meant to run is marked `text`, not `python`.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
TOOLKIT = ROOT / "examples" / "semantic"
CHECKPOINT = "path/to/autoencoder_checkpoint.pth"
EXTRACTIONS = {
    "": f"{CHECKPOINT.removesuffix('.pth')}_encoder.pth",
    "--output encoder_weights.pth": "encoder_weights.pth",
    "--output verified.pth --verify": "verified.pth",
    "--output sized.pth --input_channels 1 --latent_dim 768 --verify": "sized.pth",
    "--output hyphens.pth --input-channels 1 --latent-dim 768": "hyphens.pth",
}
"""Options of extract_encoder.py, and the file that each must leave."""
SAVE = """
import glob, sys, safetensors.torch, torch
[file] = glob.glob("gridloom-*/run/artifact/model.safetensors")
torch.save({"model_state_dict": safetensors.torch.load_file(file)}, sys.argv[1])
"""
LOAD = """
import sys, gridloom
for path in sys.argv[1:]:
    gridloom.create_semantic_encoder(pretrained_path=path, input_channels=1, latent_dim=768, freeze_weights=True)
"""


def run(name: str, arguments: list[str], folder: Path | None = None) -> bool:
    """Run in a folder, a new one if none is given; print what it printed if it fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as empty:
        place = folder or Path(empty)
        environment = {**os.environ, "TMPDIR": str(place)}
        command = [sys.executable, "-W", "error", *arguments]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    word = "ok" if done.returncode == 0 else "FAILED"
    print(f"{word:7} {time.monotonic() - started:6.1f} s  {name}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:])
    return done.returncode == 0


def run_toolkit() -> list[bool]:
    """Run the toolkit's scripts in one folder: its example, then the extraction of what that has trained."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        good = [
            run("examples/semantic/usage_example.py", [str(TOOLKIT / "usage_example.py")], folder),
            run("an autoencoder's checkpoint", ["-c", SAVE, CHECKPOINT], folder),
        ]
        for options in EXTRACTIONS:
            arguments = [str(TOOLKIT / "extract_encoder.py"), CHECKPOINT, *options.split()]
            good.append(run(f"examples/semantic/extract_encoder.py {CHECKPOINT} {options}", arguments, folder))
        good.append(run("each file that this wrote", ["-c", LOAD, *EXTRACTIONS.values()], folder))
    return good


def main() -> int:
    """Run all, then say how many failed."""
    good = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
        if blocks:
            good.append(run(f"{page.relative_to(ROOT)} ({len(blocks)} blocks)", ["-c", "\n".join(blocks)]))
    examples = [*sorted((ROOT / "examples").glob("*.py")), TOOLKIT / "months.py"]
    good += [run(str(path.relative_to(ROOT)), [str(path)]) for path in examples]
    good += run_toolkit()
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
