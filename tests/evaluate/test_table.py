"""Tables of scores, and scores as text."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from gridloom.core.errors import DataError
from gridloom.core.score import Score
from gridloom.evaluate.table import from_json, pivot, to_csv, to_json, to_markdown, to_rich

NAN = float("nan")


def score(method, metric, value, low=NAN, high=NAN, *, group="sst", unit="1", data="sea", split="test", seed=0):
    return Score(
        data=data, split=split, method=method, metric=metric, unit=unit, group=group, seed=seed,
        value=value, low=low, high=high, num_blocks=0 if math.isnan(low) else 20,
    )  # fmt: skip


SCORES = [
    score("persistence", "rmse", 1.23456, 1.1, 1.4, unit="degC"),
    score("persistence", "skill", 0.0, 0.0, 0.0),
    score("persistence", "bias", 0.01234, unit="degC"),
    score("model", "rmse", 0.81234, 0.75, 0.9, unit="degC"),
    score("model", "skill", 0.5671, 0.52, 0.61),
    score("model", "bias", -0.2, unit="degC"),
]


def test_markdown_has_methods_as_rows_units_intervals_and_the_best_in_bold():
    assert to_markdown(SCORES).splitlines() == [
        "| method | rmse [degC] | skill | bias [degC] |",
        "| --- | ---: | ---: | ---: |",
        "| persistence | 1.23 (1.10 to 1.40) | 0 | **0.01234** |",
        "| model | **0.81** (0.75 to 0.90) | **0.567** (0.520 to 0.610) | \u22120.2000 |",
    ]


def test_groups_stand_in_the_heading_where_there_are_several():
    scores = [score("a", "rmse", 1.0, group=group, unit="K") for group in ("all", "sst", "air")]
    assert pivot(scores).columns == ("rmse all [K]", "rmse sst [K]", "rmse air [K]")
    assert pivot(scores, groups=["sst"]).columns == ("rmse [K]",)
    assert pivot(SCORES, metrics=["skill"]).columns == ("skill",)


def test_all_is_left_out_where_it_repeats_the_only_variable():
    scores = [score("a", "rmse", 1.0, group=group) for group in ("all", "sst")]
    assert pivot(scores).columns == ("rmse",)


def test_a_missing_score_is_an_empty_cell():
    table = pivot([*SCORES, score("other", "skill", NAN)])
    assert table.rows[2][1][0] is None
    assert table.rows[2][1][1].value == "n/a"
    assert to_markdown([*SCORES, score("other", "skill", 0.1)]).splitlines()[-1] == "| other |  | 0.1000 |  |"


def test_other_data_is_named_and_not_compared():
    scores = [
        score("a", "rmse", 2.0, data="sea"),
        score("b", "rmse", 3.0, data="sea"),
        score("a", "rmse", 9.0, data="land"),
        score("b", "rmse", 8.0, data="land"),
    ]
    table = pivot(scores)
    assert [row[0] for row in table.rows] == ["a (sea)", "b (sea)", "a (land)", "b (land)"]
    assert [row[1][0].best for row in table.rows] == [True, False, False, True]


def test_an_unknown_metric_or_a_single_method_has_no_best():
    assert not any(row[1][0].best for row in pivot([score("a", "charm", 1.0), score("b", "charm", 2.0)]).rows)
    assert not pivot([score("a", "rmse", 1.0)]).rows[0][1][0].best


def test_ties_are_all_best():
    assert all(row[1][0].best for row in pivot([score("a", "mae", 1.0), score("b", "mae", 1.0)]).rows)


def test_two_scores_for_one_cell_are_refused():
    with pytest.raises(DataError, match="two scores"):
        pivot([SCORES[0], SCORES[0]])


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (12345.678, 12000.0, 13000.0, "12346 12000 to 13000"),
        (1.5e-9, NAN, NAN, "1.5e\u221209 "),
        (-0.0001, -0.4, 0.4, "0.00 \u22120.40 to 0.40"),
        (3.2e9, NAN, NAN, "3.2e+09 "),
        (98.764, 97.2, 99.1, "98.8 97.2 to 99.1"),
    ],
)
def test_figures_have_as_many_decimals_as_the_interval_justifies(value, low, high, expected):
    cell = pivot([score("a", "rmse", value, low, high)]).rows[0][1][0]
    assert f"{cell.value} {cell.interval}" == expected


def test_rich_shows_what_markdown_shows_and_takes_no_markup():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=120)
    console.print(to_rich([*SCORES, score("[red]x", "skill", 0.1)], title="sea"))
    text = console.file.getvalue()
    for part in ("sea", "rmse [degC]", "[red]x", "0.567", "0.520 to 0.610"):
        assert part in text


def test_json_and_back_is_the_same_and_valid():
    scores = [*SCORES, score("x", "skill", -math.inf)]
    text = to_json(scores)
    json.loads(text, parse_constant=pytest.fail)
    for before, after in zip(scores, from_json(text), strict=True):
        blank = {"value": 0.0, "low": 0.0, "high": 0.0}
        assert replace(before, **blank) == replace(after, **blank)
        for name in blank:
            assert str(getattr(before, name)) == str(getattr(after, name))


@pytest.mark.parametrize("text", ["{", "3", '["a"]', '[{"data": "x"}]', '{"a": 1}'])
def test_other_json_is_refused(text):
    with pytest.raises(DataError, match="expected a JSON list of scores"):
        from_json(text)


def test_a_wrong_type_in_json_is_refused():
    record = json.loads(to_json(SCORES[:1]))
    record[0]["method"] = 3
    with pytest.raises(DataError, match="method"):
        from_json(json.dumps(record))


def test_csv_reads_back_with_quotes_and_full_precision():
    scores = [score('a "b", c', "rmse", 1 / 3)]
    (row,) = csv.DictReader(io.StringIO(to_csv(scores)))
    assert row["method"] == 'a "b", c'
    assert float(row["value"]) == 1 / 3
    assert row["low"] == ""
