import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.encoders.hostile import Hostile, small_weights, write_hostile_files

ROOT = Path(__file__).parents[2]
SECONDS, MEGABYTES = 1.0, 256.0


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Hostile], Path]:
    folder = tmp_path_factory.mktemp("hostile")
    return write_hostile_files(folder / "files", folder / "canary"), folder / "canary"


@pytest.fixture(scope="module")
def verdicts(corpus: tuple[list[Hostile], Path], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What one child makes of all of them, with torch's own protection switched off by its environment."""
    good = tmp_path_factory.mktemp("good") / "good.pth"
    torch.save(small_weights(), good)
    command = [sys.executable, "-m", "tests.encoders.read_hostile", str(good), *(str(file.path) for file in corpus[0])]
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_the_canary_would_sing(corpus: tuple[list[Hostile], Path]) -> None:
    files, canary = corpus
    bare = next(file for file in files if file.path.name == "code.pkl")
    pickle.loads(bare.path.read_bytes())
    assert canary.is_dir()
    canary.rmdir()


def test_no_file_runs_code(corpus: tuple[list[Hostile], Path], verdicts: dict) -> None:
    assert len(verdicts["results"]) == len(corpus[0]) > 40
    assert not corpus[1].exists()


def test_every_file_is_refused_in_one_line(corpus: tuple[list[Hostile], Path], verdicts: dict) -> None:
    problems = []
    for file, verdict in zip(corpus[0], verdicts["results"], strict=True):
        message = verdict["message"]
        if verdict["error"] != "CheckpointError":
            problems.append(f"{file.kind}: {verdict['error']} {message}")
        elif file.says not in message.replace(str(file.path), "") or file.path.name not in message:
            problems.append(f"{file.kind}: {file.says!r} is not in {message!r}")
        elif "\n" in message or len(message.replace(str(file.path), "")) >= 400:
            problems.append(f"{file.kind}: {len(message)} characters: {message!r:.600}")
        elif "weights_only=False" in message:
            problems.append(f"{file.kind}: advises to switch the protection off: {message}")
    assert not problems, "\n".join(problems)


def test_refusing_is_quick_and_small(verdicts: dict) -> None:
    slow = {verdict["name"]: verdict["seconds"] for verdict in verdicts["results"] if verdict["seconds"] > SECONDS}
    large = {
        verdict["name"]: verdict["peak"] - verdicts["baseline"]
        for verdict in verdicts["results"]
        if verdict["peak"] - verdicts["baseline"] > MEGABYTES
    }
    assert not slow and not large
