"""report: a run as one self-contained HTML page."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import gridloom
from gridloom.core.config import dump_yaml
from gridloom.core.contracts import Encoder, Prepared
from gridloom.core.score import Score
from gridloom.core.system import System, Trained
from gridloom.encoders.artifact import load_model
from gridloom.evaluate.compare import ALL, judge
from gridloom.evaluate.table import breakdowns, overview
from gridloom.report.figures import draw_embeddings, draw_loss, draw_neighbors, draw_skill, embed_source
from gridloom.report.page import Card, Section, render_page, write_page
from gridloom.train.log import read_metrics
from gridloom.viz.style import save, to_png_bytes, to_svg
from gridloom.workflows.evaluate import Evaluation, evaluate_trained
from gridloom.workflows.view import data_name, make_view

__all__ = ["draw_report", "report"]

_MOST_WINDOWS = 600
_MOST_CANDIDATES = 150
"""Few enough that the nearest neighbors are not one window moved by some cells."""
_VECTOR = {"loss", "skill"}
"""Figures of lines and text: the others are mostly pictures, for which PNG is smaller than SVG."""

_CAPTIONS = {
    "loss": "Loss over optimizer steps: mean over a batch (train), over windows of the validation part.",
    "embeddings": "Embeddings of held-out windows on their first two principal components, with the windows.",
    "neighbors": "Held-out windows (left) and the training windows with the most similar embeddings. "
    "Numbers: cosine similarity; place of the center.",
    "skill": "Skill, 1 - mse / mse of the best baseline, with 90 % intervals over blocks; hollow where that holds 0. "
    "Methods below -2 are left out; the table has them.",
}


def report(run: Path | str, *, output: Path | str | None = None, figures: Path | str | None = None) -> Path:
    """Draw a finished run.

    Args:
        run: Run folder.
        output: The page; `report.html` in the run folder if not given.
        figures: Folder for the pictures by themselves, as PNG and SVG.

    Returns:
        The page.

    Raises:
        CheckpointError: The run is not finished, or is none.
    """
    run = Path(run)
    artifact, trained = load_model(run)
    prepared = artifact.system.prepare(trained.config)
    evaluation = evaluate_trained(artifact.system, trained, prepared)
    return draw_report(
        run,
        artifact.system,
        trained,
        prepared,
        evaluation,
        output=None if output is None else Path(output),
        figures=None if figures is None else Path(figures),
    )


def draw_report(
    run: Path,
    system: System,
    trained: Trained,
    prepared: Prepared,
    evaluation: Evaluation,
    *,
    output: Path | None = None,
    figures: Path | None = None,
) -> Path:
    """Draw a run whose evaluation is at hand; see `report`."""
    metrics = read_metrics(run / "metrics.jsonl")
    drawn, captions = _draw(run, system, trained, prepared, evaluation)
    if figures is not None:
        for name, made in drawn.items():
            save(made, figures / f"{name}.png")
            save(made, figures / f"{name}.svg")
    pictures = {name: to_svg(made) if name in _VECTOR else to_png_bytes(made) for name, made in drawn.items()}
    steps = max((record["step"] for record in metrics), default=trained.config.train.steps)
    page = render_page(
        f"{system.name} on {data_name(trained.config)}",
        f"{steps:,} steps of {trained.config.train.batch_size} windows, "
        f"{sum(parameter.numel() for parameter in trained.objective.parameters()):,} parameters",
        _sections(system, prepared, evaluation, pictures, captions),
        command=f"gridloom train {system.name} --config {run / 'config.yaml'} --output {run}-again",
        config_yaml=f"system: {system.name}\n{dump_yaml(trained.config)}",
        versions=_versions(),
        warnings=_warnings(evaluation.scores, system.name, metrics),
        cards=_cards(system, evaluation.scores, prepared, metrics),
    )
    path = output or run / "report.html"
    write_page(path, page)
    return path


def _draw(
    run: Path, system: System, trained: Trained, prepared: Prepared, evaluation: Evaluation
) -> tuple[dict[str, Any], dict[str, str]]:
    """The figures by name, and the captions of the system's own."""
    drawn: dict[str, Any] = {"loss": draw_loss(read_metrics(run / "metrics.jsonl"))}
    captions: dict[str, str] = {}
    if evaluation.task is not None:
        view = make_view(run, system, trained, prepared, evaluation)
        for name, draw in system.figures.items():
            drawing = draw(view)
            if drawing is not None:
                drawn[name], captions[name] = drawing.figure, drawing.caption
        drawn["skill"] = draw_skill(view)
    encoder = getattr(trained.objective, "encoder", None)
    if isinstance(encoder, Encoder):
        origin = str(prepared.history.attrs.get("origin", "upper"))
        held_out = embed_source(encoder, prepared.sources["test"], most=_MOST_WINDOWS, origin=origin)
        training = embed_source(encoder, prepared.sources["train"], most=_MOST_CANDIDATES, origin=origin)
        if held_out is not None and training is not None:
            drawn["embeddings"] = draw_embeddings(held_out, prepared.label)
            drawn["neighbors"] = draw_neighbors(held_out, training)
    return {name: made for name, made in drawn.items() if made is not None}, captions


def _sections(
    system: System,
    prepared: Prepared,
    evaluation: Evaluation,
    pictures: Mapping[str, str | bytes],
    captions: Mapping[str, str],
) -> list[Section]:
    texts = {**_CAPTIONS, **captions}

    def figures(*names: str) -> list[tuple[str, str | bytes]]:
        return [(texts.get(name, name.replace("_", " ")), pictures[name]) for name in names if name in pictures]

    scores = [score for score in evaluation.scores if not _is_probe(score)]
    probes = [score for score in evaluation.scores if _is_probe(score)]
    sections = [
        Section(title="Data", text=_describe_data(prepared)),
        Section(title="Training", figures=figures("loss")),
    ]
    own = [name for name in system.figures if name in pictures]
    if own:
        sections.append(Section(title="What it makes of held-out data", figures=figures(*own)))
    if "embeddings" in pictures:
        text = "Windows of the held-out part. What lies together, the encoder takes for alike."
        sections.append(Section(title="Embeddings", text=text, figures=figures("embeddings", "neighbors")))
    if scores:
        by_lead = [part for title, part in breakdowns(scores) if title.endswith("by lead")]
        text = (
            "The model beside dumb baselines, on the held-out part. Skill is measured against the best of them; "
            "intervals are 90 %, from a paired bootstrap over contiguous blocks."
        )
        sections.append(
            Section(title="Scores", text=text, figures=figures("skill"), tables=[overview(scores), *by_lead])
        )
    if probes:
        text = (
            "What simple models read of the label from the embedding, beside raw pixels, PCA, an untrained encoder and "
            "four moments. Folds are contiguous; everything is fitted on the training folds alone."
        )
        sections.append(Section(title="Probes", text=text, tables=[probes]))
    return sections


def _is_probe(score: Score) -> bool:
    return score.group in ("1-nn", "5-nn cosine", "linear", "ridge") or score.group.endswith("-shot linear")


def _describe_data(prepared: Prepared) -> str:
    splits = prepared.splits
    counts = ", ".join(f"{len(source):,} for {part}" for part, source in prepared.sources.items())
    missing = {
        str(name): float(1 - np.isfinite(values.values).mean())
        for name, values in prepared.history.data_vars.items()
        if values.dtype.kind == "f"
    }
    shares = ", ".join(f"{name} {share:.1%}" for name, share in missing.items())
    return f"{_describe_parts(splits)} Windows: {counts}.\n\nMissing in the training part: {shares or 'nothing'}."


def _describe_parts(splits: Mapping[str, Any]) -> str:
    if "clips" in splits:
        clips = []
        for name, parts in splits["clips"].items():
            ranges = ", ".join(f"{part} {start} to {stop}" for part, (start, stop) in parts.items() if stop > start)
            clips.append(f"{name} ({ranges})")
        return f"Clips, each cut along {splits['dim']}: {'; '.join(clips)}."
    if "parts" not in splits:
        return (
            f"Held out: {splits['share']:.0%} of what was observed for the test, in gaps of the kind "
            f"{splits['gaps']} (seed {splits['seed']}), and others for validation."
        )
    parts = ", ".join(f"{name} {start} to {stop}" for name, (start, stop) in splits["parts"].items())
    gap = f", {splits['gap']} cells apart" if "gap" in splits else ""
    return f"Split along {splits['dim']} into contiguous parts{gap}: {parts}."


def _cards(system: System, scores: Sequence[Score], prepared: Prepared, metrics: Sequence[Mapping]) -> list[Card]:
    cards = []
    skills = [score for score in scores if score.metric == "skill" and score.group == ALL]
    ours = next((score for score in skills if score.method == system.name), None)
    if ours is not None:
        note = f"90 % interval {ours.low:.2f} to {ours.high:.2f}" if ours.num_blocks else "no interval, too few blocks"
        cards.append(Card(label=f"skill against {skills[0].method}", value=f"{ours.value:.2f}", note=note))
    for metric in ("rmse", "accuracy"):
        found = next((s for s in scores if s.metric == metric and s.method in (system.name, "encoder")), None)
        if found is not None:
            value = f"{found.value:.4g} {found.unit}"
            cards.append(Card(label=f"{metric}, {found.group}", value=value, note=f"{found.split} part"))
    validation = [record["loss"] for record in metrics if record["part"] == "validation"]
    if validation:
        cards.append(Card(label="validation loss", value=f"{validation[-1]:.4g}", note=f"first {validation[0]:.4g}"))
    cards.append(Card(label="training windows", value=f"{len(prepared.sources['train']):,}"))
    return cards


def _warnings(scores: Sequence[Score], name: str, metrics: Sequence[Mapping]) -> list[str]:
    found = []
    ours = [score for score in scores if (score.metric, score.group, score.method) == ("skill", ALL, name)]
    if any(judge(score) != "better" for score in ours):
        found.append("The model is not shown to be better than the best baseline on the held-out part.")
    validation = [record["loss"] for record in metrics if record["part"] == "validation"]
    least = min(validation, default=0.0)
    much = 0.1 * (least if least > 0 else validation[0] - least if validation else 0.0)  # likelihoods go below 0
    if len(validation) > 2 and validation[-1] - least > much:
        found.append("The validation loss rose towards the end: the model fits its training part too closely.")
    return found


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "xarray", "zarr", "scikit-learn", "matplotlib")
    found = {"gridloom": gridloom.__version__, "python": platform.python_version()}
    return {**found, **{name: importlib.metadata.version(name) for name in names}}
