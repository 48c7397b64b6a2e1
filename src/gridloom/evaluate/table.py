"""Scores as tables to read (Markdown, terminal) and as text to keep (JSON, CSV)."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridloom.core.errors import DataError
from gridloom.core.score import Score

if TYPE_CHECKING:
    from rich.table import Table as RichTable
else:  # rich is imported where a table is made
    RichTable = Any

__all__ = [
    "Cell",
    "Table",
    "breakdowns",
    "from_json",
    "overview",
    "pivot",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_rich",
    "to_rich_tables",
]

_HIGHER = {"accuracy", "auc", "correlation", "f1", "iou", "precision", "psnr", "r2", "recall", "skill", "ssim"}
_LOWER = {"crps", "error", "loss", "mae", "mape", "mse", "nll", "rmse"}
_NEAR_ZERO = {"bias"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One score, ready to print."""

    value: str
    """The figure, with as many decimals as its interval justifies."""
    interval: str
    """`low to high`, or empty where there is none."""
    best: bool
    """Whether no other method in the column is better."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Scores with methods as rows."""

    columns: tuple[str, ...]
    """Headings of the columns after the method's, such as `rmse sst [degC]`."""
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """Method and its cells; None where there is no such score."""


def pivot(
    scores: Sequence[Score], *, metrics: Sequence[str] | None = None, groups: Sequence[str] | None = None
) -> Table:
    """Put methods in rows, and metrics and groups in columns, both in the order in which they first come.

    Where scores differ in data, split or seed, that is added to the method, and the best is sought among equals only.
    The group `all` is left out where a metric has but one other group, since it says the same.

    Args:
        scores: From `compare` or `probe`.
        metrics: The metrics shown; None for all.
        groups: The groups shown; None for all.

    Raises:
        DataError: Two scores for the same cell.
    """
    chosen = [score for score in scores if _among(score.metric, metrics) and _among(score.group, groups)]
    keys = _columns(chosen)
    varying = [name for name in ("data", "split", "seed") if len({getattr(score, name) for score in chosen}) > 1]
    rows: dict[str, dict[_Key, Score]] = {}
    for score in chosen:
        qualifiers = [f"seed {score.seed}" if name == "seed" else str(getattr(score, name)) for name in varying]
        label = f"{score.method} ({', '.join(qualifiers)})" if qualifiers else score.method
        if _key(score) in rows.setdefault(label, {}):
            raise DataError(f"{label!r} has two scores {score.metric!r} of {score.group!r}; give each method its name")
        rows[label][_key(score)] = score
    best = _best(chosen)
    return Table(
        columns=tuple(_heading(key, keys) for key in keys),
        rows=tuple(
            (label, tuple(_cell(row[key], best) if key in row else None for key in keys)) for label, row in rows.items()
        ),
    )


def overview(scores: Sequence[Score]) -> list[Score]:
    """Scores of everything together, and of variables; without those of single leads or slots (`lead=3`)."""
    return [score for score in scores if "=" not in score.group]


def breakdowns(scores: Sequence[Score]) -> list[tuple[str, list[Score]]]:
    """Skill by lead, by slot and whatever else groups of the form `lead=3` are made by.

    Returns:
        For each metric of skill and each kind of group a title, such as `skill vs persistence by lead`, and its scores.
    """
    found: dict[str, list[Score]] = {}
    for score in scores:
        if "=" in score.group and score.metric.startswith("skill"):
            kind = score.group.split("=")[0].split()[-1]
            found.setdefault(f"{score.metric} by {kind}", []).append(score)
    return list(found.items())


def to_markdown(scores: Sequence[Score]) -> str:
    """A table for a README: methods as rows, the best of each column bold, intervals in parentheses."""
    table = pivot(scores)
    lines = [("method", *table.columns), ("---", *("---:" for _ in table.columns))]
    for method, cells in table.rows:
        lines.append((method, *(_markdown_cell(cell) for cell in cells)))
    return "".join("| " + " | ".join(entry.replace("|", "\\|") for entry in line) + " |\n" for line in lines)


def to_rich(scores: Sequence[Score], *, title: str | None = None, most_columns: int = 10) -> RichTable:
    """A table for the terminal.

    Args:
        scores: What is shown.
        title: Above the table.
        most_columns: With more, the metrics that come last are left out, and the caption says so.
    """
    from rich.table import Table as RichTable
    from rich.text import Text

    metrics = list(dict.fromkeys(score.metric for score in scores))
    table, kept = pivot(scores), len(metrics)
    while len(table.columns) > most_columns and kept > 1:
        kept -= 1
        table = pivot(scores, metrics=metrics[:kept])
    left_out = f"left out here: {', '.join(metrics[kept:])}" if kept < len(metrics) else None
    rich_table = RichTable(title=title, title_justify="left", caption=left_out, caption_justify="left")
    rich_table.add_column("method")
    for column in table.columns:
        rich_table.add_column(Text(column), justify="right")
    for method, cells in table.rows:
        entries = [Text(method)]
        for cell in cells:
            entry = Text("" if cell is None else cell.value, style="bold" if cell is not None and cell.best else "")
            if cell is not None and cell.interval:
                entry.append(f"\n{cell.interval}", style="not bold dim")
            entries.append(entry)
        rich_table.add_row(*entries)
    return rich_table


def to_rich_tables(scores: Sequence[Score]) -> list[RichTable]:
    """Tables for the terminal: everything together, then skill by lead and slot, methods as columns."""
    from rich.table import Table as RichTable
    from rich.text import Text

    tables = [to_rich(overview(scores))]
    for title, part in breakdowns(scores):
        methods = list(dict.fromkeys(score.method for score in part))
        values = {(score.group, score.method): score.value for score in part}
        table = RichTable(title=title, title_justify="left")
        table.add_column("")
        for method in methods:
            table.add_column(Text(method), justify="right")
        for group in dict.fromkeys(score.group for score in part):
            row = [values.get((group, method), math.nan) for method in methods]
            table.add_row(Text(group), *("" if math.isnan(value) else f"{value:.3f}" for value in row))
        tables.append(table)
    return tables


def to_json(scores: Sequence[Score]) -> str:
    """A list of objects, one per score; NaN is null, since JSON has none."""
    records = [{name: _plain(value) for name, value in dataclasses.asdict(score).items()} for score in scores]
    return json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> list[Score]:
    """Read back what `to_json` wrote.

    Raises:
        DataError: Not JSON, or not a list of scores.
    """
    try:
        records = json.loads(text)
        return [_score(record) for record in records]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"expected a JSON list of scores, got something else ({str(error)[:160]})") from None


def to_csv(scores: Sequence[Score]) -> str:
    """Comma-separated text with a heading; one line per score, in full precision, NaN empty."""
    buffer = io.StringIO()
    names = [field.name for field in dataclasses.fields(Score)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for score in scores:
        values = (_plain(getattr(score, name)) for name in names)
        writer.writerow(["" if value is None else value for value in values])
    return buffer.getvalue()


_Key = tuple[str, str, str]
"""Metric, group and unit: what makes a column."""


def _among(name: str, chosen: Sequence[str] | None) -> bool:
    return chosen is None or name in chosen


def _key(score: Score) -> _Key:
    return score.metric, score.group, score.unit


def _columns(scores: Sequence[Score]) -> list[_Key]:
    """Columns in order of appearance, without those of `all` that repeat a single other group."""
    keys = list(dict.fromkeys(_key(score) for score in scores))
    groups: dict[str, set[str]] = {}
    for metric, group, _ in keys:
        groups.setdefault(metric, set()).add(group)
    return [key for key in keys if not (key[1] == "all" and len(groups[key[0]]) == 2)]


def _heading(key: _Key, keys: Sequence[_Key]) -> str:
    """`rmse sst [degC]`; the group is left out where all columns have the same."""
    metric, group, unit = key
    name = metric if len({other[1] for other in keys}) == 1 else f"{metric} {group}"
    return name if unit == "1" else f"{name} [{unit}]"


def _best(scores: Sequence[Score]) -> dict[tuple[str, ...], float]:
    """Best rank of each column among the methods of the same data and split, where there are several to compare."""
    ranks: dict[tuple[str, ...], list[float]] = {}
    for score in scores:
        rank = _rank(score)
        if rank is not None:
            ranks.setdefault((*_key(score), score.data, score.split), []).append(rank)
    return {place: min(found) for place, found in ranks.items() if len(found) > 1}


def _rank(score: Score) -> float | None:
    """A number that is lower the better the score is; None where that is not known."""
    metric = score.metric.split("@")[0]
    if math.isnan(score.value):
        return None
    if metric in _HIGHER:
        return -score.value
    if metric in _NEAR_ZERO:
        return abs(score.value)
    return score.value if metric in _LOWER else None


def _cell(score: Score, best: dict[tuple[str, ...], float]) -> Cell:
    rank = _rank(score)
    place = (*_key(score), score.data, score.split)
    has_interval = math.isfinite(score.low) and math.isfinite(score.high)
    decimals = _decimals(score.high - score.low if has_interval else 0.0, score.value)
    return Cell(
        value=_number(score.value, decimals),
        interval=f"{_number(score.low, decimals)} to {_number(score.high, decimals)}"
        if has_interval and score.high > score.low
        else "",
        best=rank is not None and place in best and rank == best[place],
    )


def _decimals(width: float, value: float) -> int:
    """Decimals that show two digits of the interval's width, or four of the value where there is no interval."""
    size, digits = (width, 2) if width > 0 else (abs(value), 4)
    if size == 0 or not math.isfinite(size):
        return 0
    return min(max(digits - 1 - math.floor(math.log10(size)), 0), 10)


def _number(value: float, decimals: int) -> str:
    """Fixed decimals; scientific where those would be long; a true minus sign."""
    if math.isnan(value):
        return "n/a"
    text = f"{value:.{decimals}f}" if 0 <= decimals <= 6 and abs(value) < 1e7 else f"{value:.3g}"
    return text.replace("-", "\u2212") if float(text) != 0 else text.replace("-", "")


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    value = f"**{cell.value}**" if cell.best else cell.value
    return f"{value} ({cell.interval})" if cell.interval else value


def _plain(value: str | int | float) -> str | int | float | None:
    """NaN as None; an infinity, which JSON has not either, as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _score(record: Any) -> Score:
    """One object back to a score."""
    numbers = {name: math.nan if record[name] is None else float(record[name]) for name in ("value", "low", "high")}
    score = Score(**{**record, **numbers})
    for field in dataclasses.fields(Score):
        if not isinstance(getattr(score, field.name), {"str": str, "int": int, "float": float}[_type_name(field)]):
            raise DataError(f"expected {field.name} to be a {_type_name(field)}, got {getattr(score, field.name)!r}")
    return score


def _type_name(field: dataclasses.Field) -> str:
    return field.type if isinstance(field.type, str) else field.type.__name__
