import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridloom.core.errors import CheckpointError, UnsafeFileError
from gridloom.encoders.allowed import check_names
from gridloom.encoders.unpickle import DICTIONARY, Made, Named, read_pickle


def permit_all(where: str, names: set[str]) -> None: ...


def rebuilt(value: Any) -> Any:
    """What plain Python makes of records of its own containers."""
    if isinstance(value, Made):
        assert value.name == DICTIONARY
        return {rebuilt(key): rebuilt(part) for key, part in value.pairs}
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(part) for part in value)
    return value


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.integers() | st.text() | st.tuples(st.text(), st.integers())
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner, inner) | st.tuples(inner),
    max_leaves=20,
)


@settings(max_examples=30, deadline=None)
@given(values, st.sampled_from([3, 4, 5]))
def test_plain_data_comes_out_as_python_itself_reads_it(value: Any, protocol: int) -> None:
    assert rebuilt(read_pickle("x", pickle.dumps(value, protocol), permit=permit_all)) == value


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_read_or_refused_and_nothing_else(noise: bytes) -> None:
    try:
        read_pickle("x", b"\x80\x02" + noise + b".", permit=check_names)
    except CheckpointError as error:
        assert str(error).startswith("x: ")


def test_an_object_is_a_record_of_its_class_arguments_state_and_items() -> None:
    namespace = argparse.Namespace(path=Path("a"))
    made = read_pickle("x", pickle.dumps(namespace, 4), permit=permit_all)
    assert (made.name, made.arguments) == ("argparse.Namespace", ())
    ((key, path),) = made.state.pairs
    assert key == "path" and path.name == f"pathlib.{type(Path()).__name__}" and path.arguments == ("a",)
    ordered = read_pickle("x", pickle.dumps(OrderedDict(a=1, b=OrderedDict), 2), permit=permit_all)
    (first, (key, named)) = ordered.pairs
    assert ordered.name == "collections.OrderedDict" and first == ("a", 1)
    assert isinstance(named, Named) and named.name == "collections.OrderedDict"


def test_one_object_that_stands_twice_is_one_record() -> None:
    shared: dict = {}
    twice = read_pickle("x", pickle.dumps([shared, shared], 4), permit=permit_all)
    assert twice[0] is twice[1]
    circle: list = []
    circle.append(circle)
    read = read_pickle("x", pickle.dumps(circle, 4), permit=permit_all)
    assert read[0] is read


def test_names_of_python_2_are_those_of_today() -> None:
    seen: set[str] = set()
    read_pickle(
        "x", b"\x80\x02c__builtin__\nxrange\n0ccopy_reg\n_reconstructor\n.", permit=lambda _, names: seen.update(names)
    )
    assert seen == {"builtins.range", "copyreg._reconstructor"}


@pytest.mark.parametrize(
    "name",
    [
        *("os.system", "posix.system", "builtins.exec", "builtins.getattr", "operator.attrgetter", "torch.load", ".x"),
        *(
            "torch.hub.load",
            "torch.nn",
            "numpy.load",
            "numpy.core.multiarray.os.system",
            "collections.abc",
            "pathlib.os",
        ),
        *("torch._utils._rebuild_sparse_tensor", "torch.jit._pickle.restore_type_tag", "functools.reduce"),
    ],
)
def test_a_name_without_a_place_in_a_checkpoint_is_refused(name: str) -> None:
    with pytest.raises(UnsafeFileError, match=f"asks for {name}, which"):
        check_names("x", {name, "collections.OrderedDict"})


@pytest.mark.parametrize(
    "name",
    [
        *("argparse.Namespace", "pathlib.PosixPath", "pathlib._local.PosixPath", "collections.deque", "typing.Any"),
        *(
            "numpy._core.multiarray.scalar",
            "numpy.core.multiarray._reconstruct",
            "numpy.random._pickle.__bit_generator_ctor",
        ),
        *(
            "torch.bfloat16",
            "torch.float8_e4m3fn",
            "torch.Size",
            "torch.optim.adam.Adam",
            "torch.nn.modules.loss.MSELoss",
        ),
        *("__main__.Config", "omegaconf.dictconfig.DictConfig", "lightning.fabric.utilities.data.AttributeDict"),
    ],
)
def test_data_and_classes_of_other_packages_may_be_named(name: str) -> None:
    check_names("x", {name})


def test_a_message_names_five_of_many_and_is_short() -> None:
    with pytest.raises(UnsafeFileError, match="and 995 more") as refused:
        check_names("x", {f"os.{'y' * 1000}{number:03}" for number in range(1000)})
    assert len(str(refused.value)) < 700
