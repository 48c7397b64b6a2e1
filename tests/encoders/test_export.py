"""Encoders in files that other programs run."""

import json
import logging
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gridloom.core import registry
from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, FeatureSpec, FieldSpec, InputSpec
from gridloom.core.errors import CheckpointError, ConfigError, DataError
from gridloom.core.registry import get_system
from gridloom.encoders.artifact import write_artifact
from gridloom.encoders.encoder import SemanticEncoder
from gridloom.encoders.export import export_encoder
from gridloom.encoders.fingerprint import fingerprint
from gridloom.encoders.formats import TorchFormat
from gridloom.encoders.portable import Export
from gridloom.systems.energy import EnergyConfig
from gridloom.systems.energy.config import DataConfig
from gridloom.systems.energy.config import ModelConfig as EnergyModel
from gridloom.systems.semantic import AutoEncoder, ModelConfig
from tests.contract.fakes import FAKES, FakeConfig
from tests.encoders.small import weights_file


def saved(folder: Path, system: str, config: Any) -> Path:
    """An artifact of an encoder with random weights."""
    torch.manual_seed(2)
    made = get_system(system).encoder(config)
    write_artifact(
        folder / "encoder", made, kind="encoder", system=get_system(system), config=config, normalizer={}, training={}
    )
    return folder / "encoder"


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", autouse=True)
def without_traces() -> Iterator[None]:
    """pytest listens to every logger; torch would write down each step of the exporter for it."""
    logger = logging.getLogger("torch.__trace")
    level = logger.level
    logger.setLevel(logging.WARNING)
    yield
    logger.setLevel(level)


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """The encoder of a trained run, with its statistics in the graph."""
    return export_encoder(tiny_run, tmp_path_factory.mktemp("export") / "encoder.onnx", normalize=True)


def test_onnx_runtime_gives_what_encode_numpy_gives(exported: Export, tiny_run: Path) -> None:
    generator = np.random.default_rng(0)
    encoder, ran = SemanticEncoder.from_pretrained(tiny_run, device="cpu"), session(exported.output)
    mean = encoder.normalizer.steps["temperature"][0].mean
    for count in (1, 2, 4, 9):
        values = generator.normal(mean, 3.0, (count, 1, 32, 32)).astype(np.float32)
        values[generator.random(values.shape) < 0.3] = np.nan
        values[-1] = np.nan
        expected = encoder.encode_numpy(values)
        (by_nan,) = ran.run(["embedding"], {"values": values, "valid": np.ones_like(values, dtype=bool)})
        (by_mask,) = ran.run(None, {"values": np.nan_to_num(values), "valid": np.isfinite(values)})
        assert by_nan.shape == (count, 16) and np.isfinite(by_nan).all()
        np.testing.assert_allclose(by_nan, expected, atol=1e-5)
        np.testing.assert_array_equal(by_nan, by_mask)


def test_the_file_says_what_it_takes(exported: Export, tiny_run: Path) -> None:
    ran = session(exported.output)
    assert {node.name: node.shape for node in ran.get_inputs()} == {
        "values": ["batch", 1, 32, 32],
        "valid": ["batch", 1, 32, 32],
    }
    assert {node.name: node.shape for node in ran.get_outputs()} == {"embedding": ["batch", 16]}
    assert exported.inputs == {"values": (1, 32, 32), "valid": (1, 32, 32)} and exported.format == "onnx"
    record = json.loads(ran.get_modelmeta().custom_metadata_map["gridloom"])
    encoder = SemanticEncoder.from_pretrained(tiny_run, device="cpu")
    assert record["normalizer"] == encoder.normalizer.to_json() and record["units"] == "data"
    assert record["encoder_sha256"] == fingerprint(encoder.encoder, encoder.normalizer.to_json())
    image = record["inputs"]["fields"]["image"]
    assert (image["variables"], image["size"], image["dims"]) == (["temperature"], [1, 32, 32], ["channel", "y", "x"])
    assert (record["system"], record["inputs"]["missing"], record["outputs"]) == (
        "semantic",
        "mask",
        {"embedding": ["feature"]},
    )


def test_one_file_holds_everything_and_no_place_of_this_machine(exported: Export) -> None:
    assert [path.name for path in exported.output.parent.iterdir()] == ["encoder.onnx"]
    content = exported.output.read_bytes()
    assert b".py" not in content and str(Path.cwd()).encode() not in content


def test_the_comparison_is_reported(exported: Export) -> None:
    parity = exported.parity
    assert parity.sizes == ({"batch": 2}, {"batch": 1}, {"batch": 5}) and parity.min_cosine > 0.999999
    assert 0 < parity.max_difference < 1e-4 and 0 < parity.max_relative < 1e-4


def test_a_latent_map_and_batch_norm_come_out_of_a_file_of_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoEncoder(ModelConfig(input_channels=1, latent_dim=8, width=4, latent="map", norm="batch"))
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    done = export_encoder(tmp_path / "weights.pth", tmp_path / "map.onnx", window=(16, 24))
    values = torch.randn(3, 1, 16, 24)
    ran = session(done.output)
    given = {"values": values.numpy(), "valid": np.ones(values.shape, dtype=bool)}
    embedding, latents = ran.run(["embedding", "map"], given)
    with torch.no_grad():
        expected = model.eval().encoder.latent(Field.of(values)).numpy()
    assert latents.shape == (3, 8, 2, 3)
    np.testing.assert_allclose(latents, expected, atol=1e-5)
    np.testing.assert_allclose(latents.mean((2, 3)), embedding, atol=1e-6)
    assert json.loads(ran.get_modelmeta().custom_metadata_map["gridloom"])["units"] == "normalized"


@pytest.mark.parametrize(("mask_missing", "suffix"), [(True, "onnx"), (False, "pt2")])
def test_the_energy_systems_encoder_is_exported(tmp_path: Path, mask_missing: bool, suffix: str) -> None:
    sizes = EnergyModel(widths=(4,), keypoints=4, mask_missing=mask_missing)
    config = EnergyConfig(data=DataConfig(size=(12, 16)), model=sizes)
    done = export_encoder(saved(tmp_path, "energy", config), tmp_path / f"encoder.{suffix}")
    assert list(done.inputs) == (["values", "valid"] if mask_missing else ["values"])
    assert done.parity.min_cosine > 0.9999


class TwoFields(Encoder):
    """A grid of bytes and two numbers, each with missing ones, and a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs = InputSpec(
            fields={
                "grid": FieldSpec(dims=("y", "x"), size=(4, 4), dtype="uint8"),
                "level": FieldSpec(dims=("x",), size=(2,)),
            },
            features={"slot": FeatureSpec(dims=("time",), size=(6,))},
        )
        self.outputs = {"embedding": ("feature",), "share": ()}
        self.layer = nn.Linear(18, 3)
        self.slot = nn.Embedding(5, 3)

    def forward(self, batch: Batch) -> Mapping[str, Tensor]:
        grid, level = batch.fields["grid"], batch.fields["level"]
        embedding = self.layer(torch.cat([grid.values.float().flatten(1) / 255, level.values], 1))
        share = grid.valid.float().mean((1, 2))
        return {"embedding": embedding + self.slot(batch.features["slot"]).sum(1), "share": share}


def test_several_fields_and_features_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = replace(FAKES["fake_sequence"], name="two", encoder=lambda config: TwoFields())
    monkeypatch.setitem(registry.BUILT_IN, "two", "tests.encoders.test_export:TWO")
    monkeypatch.setitem(globals(), "TWO", system)
    done = export_encoder(saved(tmp_path, "two", FakeConfig()), tmp_path / "two.onnx")
    ran = session(done.output)
    names = ["grid.values", "grid.valid", "level.values", "level.valid", "slot"]
    assert [node.name for node in ran.get_inputs()] == names == list(done.inputs)
    assert [node.name for node in ran.get_outputs()] == ["embedding", "share"]
    assert ran.get_inputs()[0].type == "tensor(uint8)" and done.inputs["slot"] == (6,)


def test_a_torch_file_holds_a_program_for_any_number_of_samples(tmp_path: Path) -> None:
    done = export_encoder(saved(tmp_path, "fake_autoencoder", FakeConfig()), tmp_path / "encoder.pt2")
    extra = {"gridloom": ""}
    program = torch.export.load(done.output, extra_files=extra)
    assert json.loads(extra["gridloom"])["system"] == "fake_autoencoder" and done.format == "pt2"
    values = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        (got,) = program.module()(values, torch.ones_like(values, dtype=torch.bool))
    assert got.shape == (7, FakeConfig().width)
    with zipfile.ZipFile(done.output) as archive:
        texts = [archive.read(name) for name in archive.namelist() if name.endswith(".json")]
    assert len(texts) > 1 and not any(b".py" in text for text in texts)


def test_an_encoder_that_looks_at_its_values_is_refused_in_one_line(tmp_path: Path) -> None:
    place = saved(tmp_path, "fake_modalities", FakeConfig())
    with pytest.raises(ConfigError, match="encoder of system 'fake_modalities' cannot be exported") as caught:
        export_encoder(place, tmp_path / "out" / "encoder.pt2")
    assert "\n" not in str(caught.value) and not list((tmp_path / "out").iterdir())


def near(run: Callable) -> Callable:
    return lambda tensors: [output + 1e-3 * output.abs().max() for output in run(tensors)]


def undefined(run: Callable) -> Callable:
    return lambda tensors: [torch.full_like(output, torch.nan) for output in run(tensors)]


def fewer(run: Callable) -> Callable:
    return lambda tensors: [output[:, 1:] for output in run(tensors)]


def broken(run: Callable) -> Callable:
    def fail(tensors: Mapping[str, Tensor]) -> list[Tensor]:
        raise RuntimeError("a reason\nand its many lines")

    return fail


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (near, "relative difference 0.001"),
        (undefined, "difference nan"),
        (fewer, "expected shape"),
        (broken, "a reason$"),
    ],
)
def test_a_file_that_gives_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable, says: str
) -> None:
    place, load = saved(tmp_path, "fake_autoencoder", FakeConfig()), TorchFormat.load
    output = tmp_path / "out" / "encoder.pt2"
    output.parent.mkdir()
    output.write_text("an older one")
    monkeypatch.setattr(TorchFormat, "load", lambda self, path: spoil(load(self, path)))
    with pytest.raises(CheckpointError, match=f"does not give what the encoder gives, it was not kept: .*{says}"):
        export_encoder(place, output, replace=True)
    assert output.read_text() == "an older one" and list(output.parent.iterdir()) == [output]


def test_a_package_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs onnxruntime, .*pip install 'gridloom\[export\]'"):
        export_encoder(tmp_path / "any", tmp_path / "encoder.onnx")


@pytest.mark.parametrize(
    ("name", "changes", "kind", "says"),
    [
        ("encoder.tflite", {}, DataError, r"ends in \.onnx or \.pt2, got '\.tflite'"),
        ("encoder", {}, DataError, "got 'no suffix'"),
        ("there.pt2", {}, DataError, "exists already; choose another --output, or pass --replace"),
        ("folder.pt2", {"replace": True}, DataError, "exists already"),
        ("encoder.pt2", {"window": (32, 40)}, DataError, "multiples of 32, got 32x40"),
        ("encoder.pt2", {"normalize": True}, ConfigError, "without training statistics; leave --normalize out"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str, changes: dict, kind: type, says: str) -> None:
    (tmp_path / "there.pt2").write_text("precious")
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(kind, match=says):
        export_encoder(weights_file(tmp_path), tmp_path / name, **changes)
    assert (tmp_path / "there.pt2").read_text() == "precious" and not (tmp_path / "encoder.pt2").exists()
