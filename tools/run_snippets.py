"""Run the Python blocks of the README, then every example, each as a newcomer would: in an empty folder.

The blocks of one page share their names, in order. A block that is not meant to run is marked `text`, not `python`.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def run(name: str, arguments: list[str]) -> bool:
    """Run in a new folder; print what it printed if it fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-W", "error", *arguments], cwd=folder, capture_output=True, text=True)
    word = "ok" if done.returncode == 0 else "FAILED"
    print(f"{word:7} {time.monotonic() - started:6.1f} s  {name}", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:])
    return done.returncode == 0


def main() -> int:
    """Run all, then say how many failed."""
    good = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
        if blocks:
            good.append(run(f"{page.relative_to(ROOT)} ({len(blocks)} blocks)", ["-c", "\n".join(blocks)]))
    good += [run(str(path.relative_to(ROOT)), [str(path)]) for path in sorted((ROOT / "examples").glob("*.py"))]
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
