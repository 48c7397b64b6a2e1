"""The card of an artifact: a README that says what it is, how to use it and how good it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from gridloom.core.config import dump_yaml
from gridloom.core.score import Score
from gridloom.evaluate.table import overview

__all__ = ["render_card"]


def _table(scores: Sequence[Score]) -> str:
    rows = ["| method | metric | group | value | 90 % interval |", "|---|---|---|---|---|"]
    for score in scores:
        interval = f"{score.low:.4g} to {score.high:.4g}" if score.num_blocks else "-"
        rows.append(
            f"| {score.method} | {score.metric} [{score.unit}] | {score.group} | {score.value:.4g} | {interval} |"
        )
    return "\n".join(rows)


def render_card(record: Mapping[str, Any], *, num_parameters: int, scores: Sequence[Score], has_encoder: bool) -> str:
    """Return the card as Markdown.

    Args:
        record: The artifact's config.json.
        num_parameters: Parameters of what is in it.
        scores: Evaluation on held-out data, the model beside the baselines.
        has_encoder: Whether `SemanticEncoder` can use it.
    """
    training = record["training"]
    lines = [
        f"# {record['system']} {record['kind']}",
        "",
        f"Written by gridloom {record['gridloom']}. {num_parameters:,} parameters. "
        f"Trained on {training.get('data', 'unknown data')} for {training.get('steps', 'unknown')} steps.",
        "",
    ]
    if has_encoder:
        lines += [
            "```python",
            "from gridloom import SemanticEncoder",
            "",
            'encoder = SemanticEncoder.from_pretrained("path/to/this/folder")',
            "embeddings = encoder.encode_dataset(dataset)  # xarray in, xarray out",
            "```",
            "",
        ]
    scores = overview(scores)
    if scores:
        data = sorted({f"{score.data}, {score.split} part" for score in scores})
        lines += [f"## Evaluation ({'; '.join(data)})", "", _table(scores), ""]
    lines += ["## Configuration", "", "```yaml", dump_yaml(record["config"]).rstrip(), "```", ""]
    return "\n".join(lines)
