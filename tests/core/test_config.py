"""YAML and dictionaries to configurations and back, strictly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core import config as config_module
from gridloom.core.config import differences, dump_yaml, from_dict, load_yaml, to_dict
from gridloom.core.errors import ConfigError
from gridloom.core.settings import RunConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 3
    name: str = "inner"


@dataclass(frozen=True, kw_only=True)
class Config:
    count: int = 1
    rate: float = 0.5
    on: bool = True
    name: str = "x"
    mode: Literal["fast", "slow"] = "fast"
    level: Literal[1, 2] = 1
    pair: tuple[float, float] = (0.9, 0.95)
    names: tuple[str, ...] = ()
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)
    extra: Inner | None = None
    table: Mapping[str, float] = field(default_factory=dict)
    place: Path | None = None
    either: int | str = 0
    free: Any = None


@dataclass(frozen=True, kw_only=True)
class Demanding:
    needed: int


def loaded(tmp_path: Path, text: str | bytes) -> dict[str, Any]:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_yaml(path)


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E+3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("7", 7),
        ("+7", 7),
        ("010", 10),
        ("09", 9),
        ("no", "no"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ("'true'", "true"),
        ("Größe 水", "Größe 水"),
    ],
)
def test_yaml_is_read_as_version_1_2(tmp_path: Path, text: str, value: object) -> None:
    found = loaded(tmp_path, f"key: {text}\n")["key"]
    assert found == value and type(found) is type(value)


def test_not_a_number_is_read(tmp_path: Path) -> None:
    assert math.isnan(loaded(tmp_path, "key: .nan\n")["key"])


BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [echo]\n", "tag"),
        ("a: !include other.yaml\n", "tag"),
        ("a: !!binary aGk=\n", "tag"),
        ("a: !!str 5\n", "tag"),
        ("a: !!set {x, y}\n", "tag"),
        ("!!map {a: 1}\n", "tag"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "aliases"),
        (BOMB, "aliases"),
        ("a: 1\na: 2\n", "duplicate key 'a'"),
        ("a:\n  b: 1\n  b: 1\n", "duplicate key 'b'"),
        ("1: x\n", "keys must be strings, got 1"),
        ("? [a, b]\n: x\n", "keys must be strings"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: [1\n", "expected"),
        ("a: \t- x", "token"),
        (b"a: \xff\xfe\n", "utf-8"),
        (b"a: \x00\n", "special characters"),
        ("[" * 10_000, "recursion"),
        ("a: " + "9" * 5000, "limit"),
    ],
)
def test_what_is_not_a_plain_configuration_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match="not a YAML configuration") as caught:
        loaded(tmp_path, text)
    assert message in str(caught.value) and "config.yaml" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize(("text", "kind"), [("- 1\n", "list"), ("5\n", "int"), ("", "NoneType"), ("text\n", "str")])
def test_the_top_level_must_be_a_mapping(tmp_path: Path, text: str, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"expected a mapping of settings, got {kind}"):
        loaded(tmp_path, text)


def test_a_file_over_one_mebibyte_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"1048577 bytes is too large for a configuration \(at most 1048576\)"):
        loaded(tmp_path, "a: 1\n" + "\n" * (1024 * 1024 - 4))
    monkeypatch.setattr(config_module, "_MAX_BYTES", 10)
    assert loaded(tmp_path, "a: 123456\n") == {"a": 123456}
    with pytest.raises(ConfigError, match="11 bytes is too large"):
        loaded(tmp_path, "a: 1234567\n")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: expected a YAML file, there is none"):
        load_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="expected a YAML file"):
        load_yaml(tmp_path)


# --- dictionaries ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cuont": 2}, r"^config\.cuont: unknown key; did you mean 'count'\? \(known: count, rate, "),
        ({"zzzz": 2}, r"^config\.zzzz: unknown key \(known: "),
        ({"inner": {"sise": 2}}, r"^config\.inner\.sise: unknown key; did you mean 'size'\?"),
        ({"extra": {"sise": 2}}, r"^config\.extra\.sise: unknown key; did you mean 'size'\?"),
        ({3: 1}, r"^config\.3: unknown key"),
        ({"count": "3"}, r"^config\.count: expected a whole number, got '3'$"),
        ({"count": 3.0}, r"^config\.count: expected a whole number, got 3\.0$"),
        ({"count": True}, r"^config\.count: expected a whole number, got True$"),
        ({"count": None}, r"^config\.count: expected a whole number, got None$"),
        ({"rate": "1e-4"}, r"^config\.rate: expected a number, got '1e-4'$"),
        ({"rate": False}, r"^config\.rate: expected a number, got False$"),
        ({"rate": 10**400}, r"^config\.rate: expected a number"),
        ({"on": 1}, r"^config\.on: expected true or false, got 1$"),
        ({"on": "yes"}, r"^config\.on: expected true or false, got 'yes'$"),
        ({"name": 5}, r"^config\.name: expected a string, got 5$"),
        ({"mode": "fsat"}, r"^config\.mode: expected one of 'fast', 'slow', got 'fsat'; did you mean 'fast'\?$"),
        ({"mode": ["fast"]}, r"^config\.mode: expected one of 'fast', 'slow', got "),
        ({"level": 3}, r"^config\.level: expected one of 1, 2, got 3"),
        ({"level": True}, r"^config\.level: expected one of 1, 2, got True"),
        ({"level": 1.0}, r"^config\.level: expected one of 1, 2, got 1\.0"),
        ({"pair": [0.9]}, r"^config\.pair: expected a list of 2 values, got 1$"),
        ({"pair": [0.9, 1, 2]}, r"^config\.pair: expected a list of 2 values, got 3$"),
        ({"pair": [0.9, "x"]}, r"^config\.pair\[1\]: expected a number, got 'x'$"),
        ({"pair": 0.9}, r"^config\.pair: expected a list, got 0\.9$"),
        ({"names": "abc"}, r"^config\.names: expected a list, got 'abc'$"),
        ({"names": ["a", 2]}, r"^config\.names\[1\]: expected a string, got 2$"),
        ({"limit": "many"}, r"^config\.limit: expected a whole number, got 'many'$"),
        ({"limit": True}, r"^config\.limit: expected a whole number, got True$"),
        ({"inner": 5}, r"^config\.inner: expected a mapping of settings, got 5$"),
        ({"inner": None}, r"^config\.inner: expected a mapping of settings, got None$"),
        ({"table": [1]}, r"^config\.table: expected a mapping, got \[1\]$"),
        ({"table": {"a": "x"}}, r"^config\.table\.a: expected a number, got 'x'$"),
        ({"place": 5}, r"^config\.place: expected Path, got 5$"),
        ({"either": 1.5}, r"^config\.either: 1\.5 fits none of: .*whole number.*string"),
        ([], r"^config: expected a mapping of settings, got \[\]$"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(Config, content)


def test_what_fits_is_taken_with_its_type() -> None:
    found = from_dict(
        Config,
        {"rate": 2, "pair": [1, 0.5], "names": ["a", "b"], "place": "some/where", "either": "x", "extra": {"size": 9}}
        | {"table": {"a": 1}, "limit": None, "free": [1, {"a": None}], "level": 2},
    )
    assert found == Config(
        rate=2.0,
        pair=(1.0, 0.5),
        names=("a", "b"),
        place=Path("some/where"),
        either="x",
        extra=Inner(size=9),
        table={"a": 1.0},
        free=[1, {"a": None}],
        level=2,
    )
    assert type(found.rate) is float and type(found.pair[0]) is float and type(found.table["a"]) is float


def test_a_setting_without_default_must_come() -> None:
    assert from_dict(Demanding, {"needed": 1}) == Demanding(needed=1)
    with pytest.raises(ConfigError, match=r"^file\.needed: missing; it has no default$"):
        from_dict(Demanding, {}, where="file")


def test_keys_that_do_not_come_keep_the_preset_at_every_depth() -> None:
    preset = Config(count=7, inner=Inner(size=8, name="preset"), extra=Inner(size=5, name="more"))
    found = from_dict(Config, {"rate": 1.5, "inner": {"size": 9}, "extra": {"size": 6}}, default=preset)
    assert found == replace(preset, rate=1.5, inner=Inner(size=9, name="preset"), extra=Inner(size=6, name="more"))
    assert from_dict(Config, {}, default=preset) == preset
    assert from_dict(Config, {"extra": None}, default=preset).extra is None


def test_checks_of_the_dataclass_itself_are_run() -> None:
    with pytest.raises(ConfigError, match=r"train\.steps must be at least 1, got 0"):
        from_dict(RunConfig, {"train": {"steps": 0}})


# --- there and back ---

NUMBERS = st.floats(allow_nan=False)
ODD_WORDS = (
    *(
        "1e-4",
        "no",
        "",
        "~",
        "null",
        "true",
        "12:30",
        "0x1F",
        "010",
        " a ",
        "a: b",
        "# c",
        "<<",
        "=",
        ".inf",
        "-",
        "!x",
    ),
    *("&a", "*a", "line\nbreak\n", "\ttab", "\x85\u2028", "'", '"', "%", "@", "\U0001f600", "1_000", "2020-01-01"),
    *("\x00\x1b", "\r\n", "\ufeff", "? ", "[", "{}", "a, b", "x" * 300, "word " * 60),
)
WORDS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(ODD_WORDS),
)
INNERS = st.builds(Inner, size=st.integers(), name=WORDS)
CONFIGS = st.builds(
    Config,
    count=st.integers(),
    rate=NUMBERS,
    on=st.booleans(),
    name=WORDS,
    mode=st.sampled_from(["fast", "slow"]),
    level=st.sampled_from([1, 2]),
    pair=st.tuples(NUMBERS, NUMBERS),
    names=st.lists(WORDS, max_size=3).map(tuple),
    limit=st.none() | st.integers(),
    inner=INNERS,
    extra=st.none() | INNERS,
    table=st.dictionaries(WORDS, NUMBERS, max_size=3),
    place=st.none() | st.sampled_from(["a/b", "1", "no", "ü"]).map(Path),
    either=st.integers() | WORDS,
)


@settings(max_examples=30, deadline=None)
@given(config=CONFIGS)
def test_a_dumped_configuration_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    path = tmp_path_factory.mktemp("round") / "config.yaml"
    path.write_bytes(dump_yaml(config).encode())
    again = from_dict(Config, load_yaml(path))
    assert again == config
    assert math.copysign(1, again.rate) == math.copysign(1, config.rate)
    assert differences(again, config) == []


def test_odd_strings_read_back_as_they_were(tmp_path: Path) -> None:
    assert loaded(tmp_path, dump_yaml({"list": ODD_WORDS})) == {"list": list(ODD_WORDS)}


@settings(max_examples=30, deadline=None)
@given(word=st.text())
def test_every_string_reads_back_as_a_string(tmp_path_factory: pytest.TempPathFactory, word: str) -> None:
    path = tmp_path_factory.mktemp("word") / "config.yaml"
    path.write_bytes(dump_yaml({"key": word, "list": [word]}).encode())
    assert load_yaml(path) == {"key": word, "list": [word]}


def test_a_dump_keeps_order_and_readable_letters() -> None:
    text = dump_yaml(Config(name="Größe", rate=1e-4))
    assert text.index("count:") < text.index("rate:") < text.index("mode:") < text.index("either:")
    assert "name: Größe" in text and "rate: 0.0001" in text


def test_to_dict_gives_plain_values() -> None:
    assert to_dict(Config(place=Path("a"), names=("b",), extra=Inner()))["names"] == ["b"]
    assert to_dict({1: (Path("a"), Inner(size=1))}) == {"1": ["a", {"size": 1, "name": "inner"}]}


def test_differences_are_listed_with_their_place() -> None:
    ours = RunConfig(seed=1, train=TrainConfig(steps=100))
    theirs = RunConfig(seed=2, train=TrainConfig(steps=200, betas=(0.8, 0.9)))
    assert differences(ours, ours) == []
    assert differences(ours, theirs) == [
        "seed: 1 -> 2",
        "train.steps: 100 -> 200",
        "train.betas: [0.9, 0.95] -> [0.8, 0.9]",
    ]
    assert differences({"a": {"b": 1}}, {"a": {"c": 1}}) == ["a.b: 1 -> None", "a.c: None -> 1"]
    assert differences({"a": None}, {"a": {"c": 1}}) == ["a: None -> {'c': 1}"]
