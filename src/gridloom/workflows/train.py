"""train: data and a configuration to a run folder with an artifact, its evaluation and a report."""

import dataclasses
import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gridloom.core.atomic import write_json, write_text
from gridloom.core.config import differences, dump_yaml, from_dict, load_yaml, to_dict
from gridloom.core.contracts import Prepared
from gridloom.core.errors import ConfigError, UnknownNameError
from gridloom.core.registry import get_system
from gridloom.core.score import Score
from gridloom.core.settings import RunConfig
from gridloom.core.system import System, Trained
from gridloom.encoders.artifact import write_artifact
from gridloom.train.distributed import Processes, processes
from gridloom.train.loop import train as train_loop
from gridloom.workflows.evaluate import evaluate_trained, write_scores
from gridloom.workflows.report import draw_report
from gridloom.workflows.view import data_name

__all__ = ["RunResult", "configure", "train", "with_data"]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        folder: The run folder.
        step: Optimizer steps made.
        stopped_by: Name of the signal that ended it early; None if it is complete.
        scores: Evaluation on the test part; empty if it was stopped.
    """

    folder: Path
    step: int
    stopped_by: str | None
    scores: list[Score]


def configure(
    system: System | str,
    *,
    preset: str = "default",
    file: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Any:
    """Return a configuration: the preset, then the settings of a file, then single settings.

    Args:
        system: The system or its name.
        preset: Name of one of its presets.
        file: YAML file.
        settings: Values by dotted name: `{"train.steps": 100, "data.path": "my.nc"}`.

    Raises:
        UnknownNameError: No such system or preset.
        ConfigError: An unknown key or a wrong value; names the place and the nearest known key.
    """
    system = get_system(system) if isinstance(system, str) else system
    if preset not in system.presets:
        raise UnknownNameError(f"preset of {system.name}", preset, system.presets)
    config: RunConfig = system.presets[preset]()
    if file is not None:
        content = load_yaml(file)
        name = content.pop("system", system.name)
        if name != system.name:
            raise ConfigError(f"{file}: is for system {name!r}, not {system.name!r}")
        config = from_dict(system.config, content, where=str(file), default=config)
    if settings:
        config = from_dict(system.config, _nested(settings), where="settings", default=config)
    return config


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"train.steps": 1}` to `{"train": {"steps": 1}}`."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *outer, last = name.split(".")
        place = nested
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def with_data(config: RunConfig, path: str) -> RunConfig:
    """Return the configuration with another path of the data.

    Raises:
        ConfigError: The system takes no data.
    """
    data = getattr(config, "data", None)
    if data is None or not hasattr(data, "path"):
        raise ConfigError(f"this system makes its own data; it does not take {path!r}")
    changes: dict[str, Any] = {"data": dataclasses.replace(data, path=path)}
    return dataclasses.replace(config, **changes)


def train(
    system: System | str, config: RunConfig, *, output: Path | str, show: bool = True, report: bool = True
) -> RunResult:
    """Train, write the artifact, evaluate on the test part, draw the report. Called again, it goes on where it was.

    Args:
        system: The system or its name.
        config: Its configuration.
        output: Run folder; an existing one must hold the same configuration.
        show: Show progress.
        report: Draw `report.html` at the end.

    Raises:
        ConfigError: The folder holds a run with another configuration; the differences are listed.
    """
    system = get_system(system) if isinstance(system, str) else system
    config = system.resolve(config)
    folder = Path(output)
    with processes(config.train.device) as peers:
        if peers.is_first:
            _claim(folder, system, config)
        peers.wait()
        prepared = system.prepare(config)
        if peers.is_first:
            write_json(folder / "splits.json", prepared.splits)
            write_json(folder / "normalizer.json", prepared.normalizer)
        return _train_and_finish(system, config, prepared, folder, peers, show=show, report=report)


def _claim(folder: Path, system: System, config: RunConfig) -> None:
    """Write config.yaml, or check that the one that is there says the same.

    A run that failed before its first step (windows too large, say) binds nobody: its settings may be mended.
    """
    file = folder / "config.yaml"
    if folder.is_file():
        raise ConfigError(f"{folder}: is a file, a run needs a folder; choose another --output")
    started = any((folder / name).exists() for name in ("metrics.jsonl", "checkpoints"))
    if file.is_file() and started:
        before = load_yaml(file)
        changed = differences(before, {"system": system.name, **to_dict(config)})
        if changed:
            shown = "; ".join(changed[:5]) + ("; ..." if len(changed) > 5 else "")
            raise ConfigError(f"{folder}: holds a run with other settings ({shown}); choose another --output")
        return
    if not file.is_file() and folder.exists() and any(path.name not in {".lock"} for path in folder.iterdir()):
        raise ConfigError(f"{folder}: exists and is not a run folder (no config.yaml); choose another --output")
    write_text(file, f"system: {system.name}\n{dump_yaml(config)}")


def _train_and_finish(
    system: System,
    config: RunConfig,
    prepared: Prepared,
    folder: Path,
    peers: Processes,
    *,
    show: bool,
    report: bool,
) -> RunResult:
    torch.manual_seed(config.seed)
    objective = system.objective(config)
    if system.initialize is not None and not any((folder / "checkpoints").glob("step-*")):
        system.initialize(objective, config, prepared)
    record = {
        "system": system.name,
        "config": to_dict(config),
        "normalizer": dict(prepared.normalizer),
        "data": data_name(config),
    }
    outcome = train_loop(
        objective,
        prepared.sources,
        config.train,
        seed=config.seed,
        folder=folder,
        peers=peers,
        record=record,
        monitor=system.monitor,
        show=show,
    )
    scores: list[Score] = []
    if outcome.stopped_by is None and peers.is_first:
        if system.complete is not None:
            system.complete(objective.eval(), config, prepared)
        trained = Trained(config=config, objective=objective.eval(), normalizer=prepared.normalizer)
        save = functools.partial(
            write_artifact,
            folder / "artifact",
            objective,
            kind="model",
            system=system,
            config=config,
            normalizer=prepared.normalizer,
            training={
                "data": data_name(config),
                "steps": outcome.step,
                "best_step": outcome.best_step,
                "splits": dict(prepared.splits),
            },
        )
        save()  # before the evaluation, so that nothing is lost if that fails
        evaluation = evaluate_trained(system, trained, prepared)
        scores = evaluation.scores
        write_scores(folder, scores)
        save(scores=scores)  # again, with the scores on its card
        if report:
            draw_report(folder, system, trained, prepared, evaluation)
    return RunResult(folder=folder, step=outcome.step, stopped_by=outcome.stopped_by, scores=scores)
