"""A finished run as what figures are drawn from."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gridloom.core.contracts import Objective, Prepared
from gridloom.core.system import System, Trained, View
from gridloom.encoders.artifact import Artifact, load_model
from gridloom.train.checkpoint import read_snapshots
from gridloom.train.log import read_metrics
from gridloom.workflows.evaluate import Evaluation, evaluate_trained

__all__ = ["make_view", "open_view"]


def open_view(run: Path, *, beside: View | None = None) -> tuple[Artifact, Prepared, Evaluation, View]:
    """Load a run, ask it the question of its test part, and put all together.

    Raises:
        CheckpointError: The run is not finished, or is none.
    """
    artifact, trained = load_model(run)
    prepared = artifact.system.prepare(trained.config)
    evaluation = evaluate_trained(artifact.system, trained, prepared)
    view = make_view(run, artifact.system, trained, prepared, evaluation, beside=beside)
    assert view is not None
    return artifact, prepared, evaluation, view


def make_view(
    run: Path,
    system: System,
    trained: Trained,
    prepared: Prepared,
    evaluation: Evaluation,
    *,
    beside: View | None = None,
) -> View:
    """Put together what is at hand."""
    assert evaluation.task is not None
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
