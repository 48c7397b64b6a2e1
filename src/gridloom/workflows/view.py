"""A finished run as what figures are drawn from."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gridloom.core.contracts import Objective, Prepared
from gridloom.core.errors import DataError
from gridloom.core.settings import RunConfig
from gridloom.core.system import System, Trained, View
from gridloom.encoders.artifact import Artifact, load_model
from gridloom.train.checkpoint import read_snapshots
from gridloom.train.log import read_metrics
from gridloom.workflows.evaluate import Evaluation, evaluate_trained

__all__ = ["data_name", "make_view", "open_view"]


def data_name(config: RunConfig) -> str:
    """What the run is trained on, for people."""
    data = getattr(config, "data", None)
    return str(getattr(data, "path", "") or getattr(data, "task", "") or "generated data")


def open_view(run: Path, *, beside: View | None = None) -> tuple[Artifact, Prepared, Evaluation, View]:
    """Load a run, ask it the question of its test part, and put all together.

    Raises:
        CheckpointError: The run is not finished, or is none.
    """
    artifact, trained = load_model(run)
    prepared = artifact.system.prepare(trained.config)
    evaluation = evaluate_trained(artifact.system, trained, prepared)
    return artifact, prepared, evaluation, make_view(run, artifact.system, trained, prepared, evaluation, beside=beside)


def make_view(
    run: Path,
    system: System,
    trained: Trained,
    prepared: Prepared,
    evaluation: Evaluation,
    *,
    beside: View | None = None,
) -> View:
    """Put together what is at hand.

    Raises:
        DataError: The system answers no question that could be drawn.
    """
    if evaluation.task is None:
        raise DataError(f"{run}: system {system.name!r} has no predictor and draws no figures of its own")
    return View(
        trained=trained,
        prepared=prepared,
        task=evaluation.task,
        predictions=evaluation.predictions,
        scores=evaluation.scores,
        metrics=read_metrics(run / "metrics.jsonl"),
        snapshots=partial(_snapshots, run, system, trained),
        beside=beside,
    )


def _snapshots(run: Path, system: System, trained: Trained) -> Mapping[int, Objective]:
    models = {}
    for step, tensors in read_snapshots(run).items():
        models[step] = system.objective(trained.config)
        models[step].load_state_dict(tensors, strict=True)
        models[step].eval()
    return models
