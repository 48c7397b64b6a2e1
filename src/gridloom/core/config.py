"""Configurations: frozen dataclasses to plain dictionaries and YAML and back, strictly.

An unknown key, a wrong type or a wrong length is an error that names its place and the nearest known key. YAML is read
as YAML 1.2: `1e-4` is a number, `no` and `12:30` are strings. Tags, aliases and duplicate keys are refused.
"""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from gridloom.core.errors import ConfigError, did_you_mean

__all__ = ["differences", "dump_yaml", "from_dict", "load_yaml", "to_dict"]

T = TypeVar("T")
_MAX_BYTES = 1024 * 1024


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core schema, without aliases and duplicate keys."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed", None)
        if getattr(event, "tag", None) is not None:
            raise yaml.constructor.ConstructorError(None, None, f"tags are not allowed, got {event.tag!r:.80}", None)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"keys must be strings, got {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: Any) -> int:
        """YAML 1.2 has no octal `010`; PyYAML's own constructor would make 8 of it."""
        return int(self.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


class _Dumper(yaml.SafeDumper):
    """SafeDumper whose floats and strings come back as they were."""


def _represent_float(dumper: Any, value: float) -> Any:
    text = repr(value) if math.isfinite(value) else {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _represent_string(dumper: Any, value: str) -> Any:
    """Quote and escape what is not printable: YAML folds line breaks such as U+0085 otherwise."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(float, _represent_float)
_Dumper.add_representer(str, _represent_string)
_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, []), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, [])]
    for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def load_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: Not there, too large, not YAML, or with tags, aliases, duplicate keys.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: expected a YAML file, there is none")
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(
            f"{path}: {path.stat().st_size} bytes is too large for a configuration (at most {_MAX_BYTES})"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not a YAML configuration: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(content).__name__}")
    return content


def dump_yaml(config: Any) -> str:
    """Return a configuration as YAML; reading it back gives an equal configuration."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def to_dict(config: Any) -> Any:
    """Return a dataclass as plain dictionaries, lists and scalars (JSON and YAML can hold it)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {item.name: to_dict(getattr(config, item.name)) for item in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_dict(value) for key, value in config.items()}
    if isinstance(config, Path):
        return str(config)
    if isinstance(config, Sequence) and not isinstance(config, str):
        return [to_dict(value) for value in config]
    return config


def from_dict(kind: type[T], content: Any, *, where: str = "config", default: T | None = None) -> T:
    """Build a dataclass from plain dictionaries, strictly.

    Args:
        kind: The dataclass.
        content: What came from YAML or JSON.
        where: Name of the place, for messages.
        default: Values for keys that do not come; without it the dataclass's own defaults are taken.

    Raises:
        ConfigError: Names the place, what was expected, what came, and the nearest known key.
    """
    value = _convert(kind, content, where, default)
    assert isinstance(value, kind)
    return value


def _convert_dataclass(kind: Any, content: Any, where: str, default: Any) -> Any:
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: expected a mapping of settings, got {content!r:.80}")
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}.{key}: unknown key{did_you_mean(str(key), known)} (known: {', '.join(known)})")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, item in known.items():
        if name in content:
            inner = getattr(default, name, None)
            values[name] = _convert(hints[name], content[name], f"{where}.{name}", inner)
        elif default is not None:
            values[name] = getattr(default, name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}.{name}: missing; it has no default")
    return kind(**values)


def _convert_tuple(arguments: tuple, content: Any, where: str) -> tuple:
    if isinstance(content, str) or not isinstance(content, Sequence):
        raise ConfigError(f"{where}: expected a list, got {content!r:.80}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(content)
    if len(arguments) != len(content):
        raise ConfigError(f"{where}: expected a list of {len(arguments)} values, got {len(content)}")
    return tuple(
        _convert(kind, value, f"{where}[{i}]", None)
        for i, (kind, value) in enumerate(zip(arguments, content, strict=True))
    )


def _convert_union(options: tuple, content: Any, where: str, default: Any) -> Any:
    if content is None and type(None) in options:
        return None
    reasons = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, content, where, default)
        except ConfigError as error:
            reasons.append(str(error))
    raise ConfigError(
        reasons[-1] if len(reasons) == 1 else f"{where}: {content!r:.80} fits none of: {'; '.join(reasons)}"
    )


def _convert_scalar(kind: Any, content: Any, where: str) -> Any:
    if kind is float and isinstance(content, int) and not isinstance(content, bool):
        try:
            return float(content)
        except OverflowError:
            raise ConfigError(
                f"{where}: expected a number that a float can hold, got {len(str(content))} digits"
            ) from None
    if kind is Path and isinstance(content, str):
        return Path(content)
    if not isinstance(content, kind) or (kind is int and isinstance(content, bool)):
        name = {"str": "a string", "int": "a whole number", "float": "a number", "bool": "true or false"}
        raise ConfigError(f"{where}: expected {name.get(kind.__name__, kind.__name__)}, got {content!r:.80}")
    return content


def _convert(kind: Any, content: Any, where: str, default: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, content, where, default)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, content, where, default)
    if origin is Literal:
        if not any(type(content) is type(value) and content == value for value in arguments):
            near = did_you_mean(str(content), [str(value) for value in arguments])
            raise ConfigError(f"{where}: expected one of {', '.join(map(repr, arguments))}, got {content!r:.80}{near}")
        return content
    if origin is tuple:
        return _convert_tuple(arguments, content, where)
    if origin in (dict, Mapping):
        if not isinstance(content, Mapping):
            raise ConfigError(f"{where}: expected a mapping, got {content!r:.80}")
        return {str(key): _convert(arguments[1], value, f"{where}.{key}", None) for key, value in content.items()}
    if kind is Any:
        return content
    return _convert_scalar(kind, content, where)


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """List the settings in which two configurations differ, as `train.steps: 100 -> 200`."""
    ours, theirs = to_dict(ours), to_dict(theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = []
        for key in {**ours, **theirs}:
            found += differences(ours.get(key), theirs.get(key), f"{where}.{key}" if where else key)
        return found
    return [] if ours == theirs else [f"{where}: {ours!r} -> {theirs!r}"]
