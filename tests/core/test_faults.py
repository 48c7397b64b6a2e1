"""Injected faults hit the place and the pass that was asked, and nothing without an order."""

from collections import Counter

import pytest

from gridloom.core import faults


@pytest.fixture(autouse=True)
def fresh_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_passed", Counter())


def test_a_place_fails_the_nth_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRIDLOOM_FAULT", "here:3:raise")
    faults.point("here")
    faults.point("there")
    faults.point("here")
    with pytest.raises(OSError, match="injected fault at here"):
        faults.point("here")
    faults.point("here")


def test_without_an_order_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRIDLOOM_FAULT", raising=False)
    faults.point("here")
    monkeypatch.setenv("GRIDLOOM_FAULT", "here:1:raise")
    with pytest.raises(OSError, match="injected fault at here"):
        faults.point("here")
