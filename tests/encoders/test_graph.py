"""The encoder as a function of named tensors, before it is traced."""

import numpy as np
import pytest
import torch

from gridloom.core.contracts import FieldSpec, InputSpec
from gridloom.core.errors import ConfigError
from gridloom.core.graph import Graph
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.graph import EncoderGraph, input_names, steps_of_channels
from gridloom.encoders.parity import compare, probe
from gridloom.grid.normalize import Normalizer
from gridloom.grid.steps import Bounds, Climatology, Log1p, Standard
from gridloom.systems.semantic import ModelConfig, ResNetEncoder
from tests.contract.fakes import FAKES, FakeConfig

NORMALIZER = Normalizer({"rain": (Log1p(), Standard(mean=1.5, std=0.5)), "sst": (Bounds(low=271.0, high=305.0),)})


def two_channels() -> ResNetEncoder:
    torch.manual_seed(0)
    config = ModelConfig(input_channels=2, latent_dim=8, width=4)
    return ResNetEncoder(config, variables=("rain", "sst"), window=(32, 32)).eval()


def data_units() -> np.ndarray:
    generator = np.random.default_rng(0)
    values = np.stack([generator.gamma(1.0, 4.0, (6, 32, 32)), generator.uniform(270, 306, (6, 32, 32))], axis=1)
    values[generator.random(values.shape) < 0.3] = np.nan
    values[3] = np.nan
    return values.astype(np.float32)


def in_units_of_the_network(values: np.ndarray) -> np.ndarray:
    return np.stack([NORMALIZER.apply(name, values[:, i]) for i, name in enumerate(("rain", "sst"))], axis=1)


@torch.no_grad()
def test_a_graph_that_normalizes_gives_what_the_encoder_gives_of_normalized_values() -> None:
    encoder, values = two_channels(), data_units()
    normalized = torch.from_numpy(in_units_of_the_network(values))
    everywhere = torch.ones(values.shape, dtype=torch.bool)
    (expected,) = EncoderGraph(encoder)(normalized, everywhere)
    (got,) = EncoderGraph(encoder, normalizer=NORMALIZER)(torch.from_numpy(values), everywhere)
    assert torch.isfinite(expected).all() and torch.allclose(got, expected, atol=1e-6)


@torch.no_grad()
def test_a_cell_is_missing_by_its_mask_or_by_being_nan_or_infinite() -> None:
    graph, values = EncoderGraph(two_channels(), normalizer=NORMALIZER), torch.from_numpy(data_units())
    (expected,) = graph(values, torch.ones_like(values, dtype=torch.bool))
    for garbage in (0.0, 1e30, torch.inf, -torch.inf):
        (got,) = graph(torch.where(values.isnan(), garbage, values), ~values.isnan())
        assert torch.equal(got, expected)


def test_inputs_are_named_after_fields_where_there_are_several() -> None:
    assert input_names(two_channels().inputs) == ["values", "valid"]
    sequence, modalities = (FAKES[name].encoder(FakeConfig()).inputs for name in ("fake_sequence", "fake_modalities"))
    assert input_names(sequence) == ["values", "valid", "slot"]
    assert input_names(modalities) == [
        f"{name}.{part}" for name in ("grid", "series", "static") for part in ("values", "valid")
    ]


def test_an_encoder_that_cannot_take_missing_cells_has_no_mask() -> None:
    inputs = InputSpec(fields={"image": FieldSpec(dims=("channel", "y", "x"), size=(1, 4, 4))}, missing="raise")
    given, batch = probe(inputs, 3)
    assert list(given) == ["values"] and bool(batch.fields["image"].valid.all())
    assert torch.equal(given["values"], batch.fields["image"].values)


def test_the_probe_has_cells_missing_in_both_ways() -> None:
    given, batch = probe(two_channels().inputs, 5, normalizer=NORMALIZER)
    values, valid, seen = given["values"], given["valid"], batch.fields["image"]
    by_mask, by_nan = ~valid, values.isnan()
    assert not bool((by_mask & by_nan).any()) and torch.equal(by_mask | by_nan, ~seen.valid)
    assert min(float(by_mask.float().mean()), float(by_nan.float().mean())) > 0.05
    assert torch.isfinite(values[by_mask]).all() and bool((values[by_mask] != 0).all())


@pytest.mark.parametrize(
    ("variables", "steps", "says"),
    [
        (("sst",), {"rain": (Log1p(),)}, "none for sst"),
        ((), {"rain": (Log1p(),)}, "none for any"),
        (("sst",), {"sst": (Climatology(dim="time", values=(1.0, 2.0)),)}, "needs to know the time"),
    ],
)
def test_statistics_that_a_graph_cannot_hold_are_refused(variables: tuple, steps: dict, says: str) -> None:
    spec = FieldSpec(dims=("channel", "y", "x"), size=(1, 4, 4), variables=variables)
    with pytest.raises(ConfigError, match=f"{says}.*leave --normalize out"):
        steps_of_channels("image", spec, Normalizer(steps))


def test_a_graph_takes_what_encode_takes() -> None:
    made = SemanticEncoder.__new__(SemanticEncoder)
    torch.nn.Module.__init__(made)
    made.encoder = two_channels()
    values = torch.from_numpy(in_units_of_the_network(data_units()))
    with torch.no_grad():
        (got,) = EncoderGraph(made.encoder)(values, torch.ones_like(values, dtype=torch.bool))
        assert torch.equal(got, made.encode(values))


def test_rounding_errors_of_a_feature_that_is_zero_are_no_difference() -> None:
    graph = Graph(
        module=torch.nn.Identity(),
        inputs={"values": ("x",)},
        outputs={"feature": ("x",)},
        examples=[{"values": torch.zeros(2, 3)}, {"values": torch.zeros(1, 5)}],
    )
    expected = [[example["values"]] for example in graph.examples]
    parity = compare(graph, lambda given: [given["values"] + 1e-8], expected)
    assert parity.max_difference == pytest.approx(1e-8) and parity.max_relative == pytest.approx(1e-6)
    assert parity.sizes == ({"batch": 2, "x": 3}, {"batch": 1, "x": 5}) and parity.min_cosine is None
