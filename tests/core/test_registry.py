"""Systems by name: built in, or from an installed package's entry point."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from gridloom.core import registry
from gridloom.core.errors import ConfigError, UnknownNameError
from gridloom.core.registry import get_system, system_names
from gridloom.core.settings import RunConfig
from gridloom.core.system import System
from tests.contract.fakes import AUTOENCODER

FOREIGN = dataclasses.replace(AUTOENCODER, name="foreign")
OTHER = dataclasses.replace(AUTOENCODER, name="other")
NOT_A_SYSTEM = {"name": "strange"}
Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make it look as if packages with these entry points were installed."""

    def installed(**places: str) -> None:
        points = [
            EntryPoint(name, f"tests.core.test_registry:{place}", registry.GROUP) for name, place in places.items()
        ]
        monkeypatch.setattr(registry, "entry_points", lambda *, group: EntryPoints(points).select(group=group))
        registry._installed.cache_clear()
        get_system.cache_clear()

    yield installed
    registry._installed.cache_clear()
    get_system.cache_clear()


def test_a_package_adds_a_system_by_its_entry_point(install: Install) -> None:
    install(foreign="FOREIGN")
    assert get_system("foreign") is FOREIGN
    assert system_names()[-1] == "foreign" and system_names()[0] == "semantic"


def test_a_package_cannot_take_the_place_of_a_built_in_system(install: Install) -> None:
    install(semantic="NOT_A_SYSTEM", fake_point="FOREIGN")
    assert get_system("semantic").name == "semantic"
    assert get_system("fake_point").name == "fake_point"
    assert system_names().count("semantic") == 1


@pytest.mark.parametrize("place", ["NOT_A_SYSTEM", "System", "FOREIGN"])
def test_an_entry_point_must_give_a_system_of_its_name(install: Install, place: str) -> None:
    install(strange=place)
    with pytest.raises(ConfigError, match=r"entry point 'strange' must give a gridloom System named 'strange', gave "):
        get_system("strange")


def test_an_unknown_system_names_the_nearest(install: Install) -> None:
    install(foreign="FOREIGN")
    with pytest.raises(
        UnknownNameError, match=r"unknown system 'semantics'; did you mean 'semantic'\? \(known: .*sema"
    ):
        get_system("semantics")
    with pytest.raises(UnknownNameError, match=r"did you mean 'foreign'\?"):
        get_system("forein")
    with pytest.raises(UnknownNameError, match="unknown system 'os:system'"):
        get_system("os:system")


def test_every_built_in_system_is_what_it_is_called() -> None:
    for name in system_names():
        system = get_system(name)
        assert isinstance(system, System) and system.name == name
        assert isinstance(system.presets["default"](), system.config)


def test_listing_the_names_imports_no_system_and_a_real_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_package.py").write_text("from tests.core.test_registry import OTHER as SYSTEM\n")
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gridloom.systems]\nother = other_package:SYSTEM\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("gridloom.systems.")]:
        monkeypatch.delitem(sys.modules, name)
    registry._installed.cache_clear()
    try:
        assert "other" in system_names()
        assert not [name for name in sys.modules if name.startswith(("gridloom.systems.", "other_package"))]
        assert get_system("other") is OTHER
    finally:
        registry._installed.cache_clear()
        sys.modules.pop("other_package", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Semantic"}, "must be a lower-case identifier, got 'Semantic'"),
        ({"name": "two words"}, "must be a lower-case identifier"),
        ({"name": "a\n"}, "must be a lower-case identifier"),
        ({"name": ""}, "must be a lower-case identifier"),
        ({"name": "../x"}, "must be a lower-case identifier"),
        ({"config": dict}, "config must be a subclass of RunConfig, got <class 'dict'>"),
        ({"presets": {"small": RunConfig}}, r"presets must have 'default', has \['small'\]"),
    ],
)
def test_a_system_that_cannot_work_is_refused_when_made(change: dict[str, Any], message: str) -> None:
    parts = {item.name: getattr(AUTOENCODER, item.name) for item in dataclasses.fields(System)}
    # Past the run-time check of annotations, which users do not have.
    broken = object.__new__(System)
    for name, value in (parts | change).items():
        object.__setattr__(broken, name, value)
    with pytest.raises(ConfigError, match=message):
        broken.__post_init__()
