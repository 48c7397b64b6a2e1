"""Errors name the nearest known thing and are all of one family."""

import pytest

from gridloom.core import errors
from gridloom.core.errors import GridloomError, UnknownNameError, did_you_mean


def test_every_error_is_for_users() -> None:
    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert len(kinds) == 7
    assert all(issubclass(kind, GridloomError) and issubclass(kind, ValueError) for kind in kinds)
    assert issubclass(errors.UnsafeFileError, errors.CheckpointError)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("semntic", "; did you mean 'semantic'?"),
        ("heatmaps", "; did you mean 'heatmap'?"),
        ("qqqq", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_offered_only_when_it_is_near(name: str, hint: str) -> None:
    assert did_you_mean(name, ["heatmap", "semantic"]) == hint
    assert did_you_mean(name, []) == ""


def test_an_unknown_name_lists_the_known_ones_in_order() -> None:
    assert str(UnknownNameError("system", "enrgy", {"temporal", "energy"})) == (
        "unknown system 'enrgy'; did you mean 'energy'? (known: energy, temporal)"
    )
    assert str(UnknownNameError("preset", "x", [])) == "unknown preset 'x' (known: none)"
