"""The module in files that other programs run: one step of a stream, for any size."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gridloom.cli.main import main
from gridloom.core.errors import ConfigError
from gridloom.core.graph import Graph
from gridloom.core.registry import get_system
from gridloom.core.system import Trained
from gridloom.encoders.artifact import write_artifact
from gridloom.encoders.export_model import export_model
from gridloom.encoders.formats import trace
from gridloom.nn.spline import sample_spline
from gridloom.systems.temporal.config import TemporalConfig
from gridloom.systems.temporal.gates import Evidence, SpatialGate
from gridloom.systems.temporal.graph import temporal_graph
from gridloom.systems.temporal.objective import FlickerFree
from gridloom.systems.temporal.stream import TemporalStream
from tests.systems.temporal.small import config, moving_clip

STATES = ["z_fused", "variance_fused", "alpha", "valid"]
CHEAP: dict[str, Any] = {"gate": "scalar", "refiner": "none", "flow_direction": "cur_to_prev"}
"""What is traced in the shortest time."""


def settings(**model: Any) -> TemporalConfig:
    return config(model={"channels": 3, "variances": (1.0, 1.0, 1.0), **model})


def trained(made: TemporalConfig) -> Trained[TemporalConfig]:
    """Random weights, none of them zero."""
    torch.manual_seed(0)
    objective = FlickerFree(made)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Trained(config=made, objective=objective.eval(), normalizer={})


def saved(folder: Path, **model: Any) -> Path:
    model_of = trained(settings(**model))
    write_artifact(
        folder / "model",
        model_of.objective,
        kind="model",
        system=get_system("temporal"),
        config=model_of.config,
        normalizer={},
        training={},
    )
    return folder / "model"


@pytest.fixture(scope="module", autouse=True)
def without_traces() -> Iterator[None]:
    """pytest listens to every logger; torch would write down each step of the exporter for it."""
    logger = logging.getLogger("torch.__trace")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


@torch.no_grad()
def assert_same(graph: Graph, run: Any) -> None:
    for example in graph.examples:
        given = [example[name] for name in graph.inputs]
        for got, expected in zip(run(*given), graph.module(*given), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


class Parts(nn.Module):
    """What has sizes to halve or to mirror, without the sampling, which takes the longest to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = SpatialGate(width=2)

    def forward(self, values: torch.Tensor, flow: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cells = torch.ones_like(values[:, :1])
        valid = flow[:, :1] > 0
        evidence = Evidence(warped=values, current=-values, variance=cells, valid=valid, noise=noise)
        gain = self.gate(evidence, torch.zeros(()))
        return gain.alpha, gain.variance, sample_spline(values, flow, lambda maps, moved: maps + moved[:, :1])


def test_gate_and_spline_are_exported_for_any_size() -> None:
    torch.manual_seed(0)
    parts = Parts()
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))

    def example(batch: int, height: int, width: int) -> dict[str, torch.Tensor]:
        values, flow = torch.randn(batch, 3, height, width), torch.randn(batch, 2, height, width)
        return {"values": values, "flow": flow, "noise": 0.5 + torch.rand(batch, 3)}

    graph = Graph(
        module=parts,
        inputs={"values": (3, "y", "x"), "flow": (2, "y", "x"), "noise": (3,)},
        outputs={"alpha": (1, "y", "x"), "variance": (1, "y", "x"), "sampled": (3, "y", "x")},
        least={"y": 5, "x": 5},
        examples=[example(*sizes) for sizes in ((2, 12, 20), (1, 17, 10), (3, 5, 15))],
    )
    assert_same(graph, trace(graph).program.module())


@torch.no_grad()
def test_a_graph_goes_on_with_what_it_gave_like_a_stream() -> None:
    model = trained(settings(gate="kalman", refiner="plain", flow_direction="cur_to_prev"))
    step = temporal_graph(model).module
    clip, noise = moving_clip(length=4), torch.full((1, 3), 0.04)
    frames = torch.from_numpy(clip["frames"].values)[:, None]
    flows = torch.from_numpy(clip["flow"].values)[:, None]
    stream = TemporalStream(model.objective.module, noise=noise)
    expected = stream.push(frames[0])
    z, variance = frames[0], torch.ones(1, 1, 20, 24)
    for frame, flow in zip(frames[1:], flows[1:], strict=True):
        expected = stream.push(frame, flow)
        z, variance, alpha, valid = step(z, frame, flow, variance, noise)
        torch.testing.assert_close(z, expected.z)
        torch.testing.assert_close(variance, expected.variance)
        assert not alpha[~valid].any()


@torch.no_grad()
def test_a_cell_that_nobody_knows_is_nan_and_nothing_else_is() -> None:
    graph = temporal_graph(trained(settings(**CHEAP)))
    given = {name: tensor.nan_to_num() for name, tensor in graph.examples[0].items()}
    given["flow"][:] = 0
    given["z_prev"][0, :, 4, 5] = given["z_cur"][0, 1, 4, 5] = torch.nan
    z, variance, alpha, valid = graph.module(*given.values())
    assert z.isnan().nonzero().tolist() == [[0, 1, 4, 5]]
    assert (~valid).nonzero().tolist() == [[0, 0, 4, 5]] and alpha[0, 0, 4, 5] == 0
    assert torch.isfinite(variance).all()


def test_export_writes_an_onnx_file_for_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    place, output = saved(tmp_path, **CHEAP), tmp_path / "m.onnx"
    assert main(["export", str(place), "--output", str(output)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "input z_prev N x 3 x y x x" in printed and "output alpha N x 1 x y x x" in printed
    assert "batch 2, y 12, x 20; batch 1, y 17, x 10; batch 3, y 9, x 14" in printed and "cosine" not in printed
    ran = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    assert [node.name for node in ran.get_inputs()] == ["z_prev", "z_cur", "flow", "variance", "noise"]
    assert [node.name for node in ran.get_outputs()] == STATES
    assert ran.get_inputs()[0].shape == ["batch", 3, "y", "x"]
    record = json.loads(ran.get_modelmeta().custom_metadata_map["gridloom"])
    assert (record["system"], record["flow_direction"], len(record["model_sha256"])) == ("temporal", "cur_to_prev", 64)
    assert record["inputs"]["flow"] == ["batch", 2, "y", "x"] and set(record["meaning"]) >= set(STATES)
    graph = temporal_graph(trained(settings(**CHEAP)))

    def run(*tensors: torch.Tensor) -> list[torch.Tensor]:
        given = {name: tensor.numpy() for name, tensor in zip(graph.inputs, tensors, strict=True)}
        return [torch.from_numpy(values) for values in ran.run(None, given)]

    assert_same(graph, run)


@pytest.mark.parametrize(
    ("flags", "says"), [(["--window", "8", "8"], "--window and --normalize are for encoders"), (["--normalize"], "for")]
)
def test_settings_of_encoders_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    assert main(["export", str(saved(tmp_path)), "--output", str(tmp_path / "m.pt2"), *flags]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "m.pt2").exists()


def test_literal_formulas_are_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'seed' is there to be compared with"):
        export_model(saved(tmp_path, gate="scalar", compat="seed"), tmp_path / "m.pt2")
