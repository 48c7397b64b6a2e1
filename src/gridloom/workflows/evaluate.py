"""evaluate: a trained model beside the dumb baselines, on data that it has not seen."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from gridloom.core.atomic import write_text
from gridloom.core.contracts import Encoder, Prepared, Source, Task
from gridloom.core.errors import DataError, UnknownNameError
from gridloom.core.score import Score
from gridloom.core.system import System, Trained
from gridloom.encoders.artifact import load_model
from gridloom.evaluate.compare import ALL
from gridloom.evaluate.features import PCAFeatures, moments
from gridloom.evaluate.probe import probe
from gridloom.evaluate.table import to_csv, to_json

__all__ = ["Evaluation", "evaluate", "evaluate_trained", "write_scores"]

_LOGGER = logging.getLogger(__name__)
_PCA_COMPONENTS = 32
_ENCODE_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What came out.

    Attributes:
        task: The question.
        predictions: Answers by method: the best baseline first, the model last under its system's name.
        scores: Scores of the task and, where there are labels, of the probes.
    """

    task: Task | None
    predictions: Mapping[str, xr.Dataset]
    scores: list[Score]


def evaluate(
    model: Path | str, data: str | None = None, *, split: str = "test", output: Path | str | None = None
) -> Evaluation:
    """Evaluate a run or a model artifact.

    Args:
        model: Run folder or artifact.
        data: Other data than it was trained on; cut and split in the same way.
        split: Part that is asked about: `test` or `validation`.
        output: Folder for `scores.json` and `scores.csv`; None writes nothing.
    """
    from gridloom.workflows.train import with_data

    artifact, trained = load_model(model)
    config = trained.config if data is None else with_data(trained.config, data)
    prepared = artifact.system.prepare(config)
    evaluation = evaluate_trained(artifact.system, trained, prepared, split=split)
    if output is not None:
        write_scores(Path(output), evaluation.scores)
    return evaluation


def evaluate_trained(system: System, trained: Trained, prepared: Prepared, *, split: str = "test") -> Evaluation:
    """Ask a model and the baselines the same question, and score them together.

    Skill is measured against the baseline with the smallest error: the hardest one to beat.
    """
    if split not in prepared.sources:
        raise UnknownNameError("part", split, prepared.sources)
    scores: list[Score] = []
    task, predictions = None, {}
    if system.predictor is not None and system.score is not None:
        task = prepared.task(split)
        baselines = {name: build(trained.config, prepared.history) for name, build in system.baselines.items()}
        predictions = {
            name: baseline.predict(task.given, task.wanted)
            for name, baseline in baselines.items()
            if baseline is not None
        }
        predictions[system.name] = system.predictor(trained).predict(task.given, task.wanted)
        scores = system.score(task, predictions, trained.config.seed)
        best = _best_baseline(scores, list(predictions)[:-1])
        if best is not None and best != next(iter(predictions)):
            predictions = {best: predictions[best], **predictions}
            scores = system.score(task, predictions, trained.config.seed)
    if prepared.label is not None and system.encoder is not None:
        scores = scores + probe_encoder(system, trained, prepared, split)
    if not scores:
        raise DataError(f"system {system.name!r}: nothing to evaluate, it has no predictor and its data no label")
    return Evaluation(task=task, predictions=predictions, scores=scores)


def _best_baseline(scores: Sequence[Score], names: list[str]) -> str | None:
    """The baseline with the highest skill over everything."""
    skills = {score.method: score.value for score in scores if score.metric == "skill" and score.group == ALL}
    known = [name for name in names if np.isfinite(skills.get(name, np.nan))]
    return max(known, key=lambda name: skills[name], default=None)


def probe_encoder(system: System, trained: Trained, prepared: Prepared, split: str) -> list[Score]:
    """Probe the embeddings beside raw pixels, PCA, a random encoder and four moments.

    Probes are fitted and tested by contiguous folds of the windows that the encoder was not trained on.
    """
    assert system.encoder is not None and prepared.label is not None
    parts = [part for part in ("validation", "test") if part in prepared.sources]
    encoder = trained.objective.encoder
    assert isinstance(encoder, Encoder)
    torch.manual_seed(trained.config.seed)
    untrained = system.encoder(trained.config).eval()
    collected: dict[str, list[np.ndarray]] = {}
    labels = []
    for part in parts:
        source = prepared.sources[part]
        labels.append(np.asarray(source.coordinates(list(range(len(source))))[prepared.label]))
        for name, values in _features(source, encoder, untrained).items():
            collected.setdefault(name, []).append(values)
    features = {name: np.concatenate(values) for name, values in collected.items()}
    raw = features["raw pixels"]
    return probe(
        {**features, f"PCA-{_PCA_COMPONENTS}": PCAFeatures(raw, _PCA_COMPONENTS)},
        np.concatenate(labels),
        data=str(getattr(getattr(trained.config, "data", None), "path", system.name)),
        split="+".join(parts),
        seed=trained.config.seed,
    )


@torch.inference_mode()
def _features(source: Source, encoder: Encoder, untrained: Encoder) -> dict[str, np.ndarray]:
    device = next(encoder.parameters()).device
    found: dict[str, list[np.ndarray]] = {"encoder": [], "random encoder": [], "raw pixels": [], "moments": []}
    for start in range(0, len(source), _ENCODE_AT_ONCE):
        batch = source.collate(list(range(start, min(start + _ENCODE_AT_ONCE, len(source)))), 0)
        found["encoder"].append(encoder(batch.to(device))["embedding"].float().cpu().numpy())
        found["random encoder"].append(untrained(batch)["embedding"].float().numpy())
        fields = [
            (field.values.numpy(), field.valid.expand_as(field.values).numpy()) for field in batch.fields.values()
        ]
        found["raw pixels"].append(np.concatenate([values.reshape(len(values), -1) for values, _ in fields], axis=1))
        grids = [(values, valid) for values, valid in fields if values.ndim == 4]
        if grids:
            found["moments"].append(np.concatenate([moments(values, valid) for values, valid in grids], axis=1))
    return {name: np.concatenate(values) for name, values in found.items() if values}


def write_scores(folder: Path, scores: Sequence[Score]) -> None:
    """Write scores.json and scores.csv."""
    write_text(folder / "scores.json", to_json(scores))
    write_text(folder / "scores.csv", to_csv(scores))
