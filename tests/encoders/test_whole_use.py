"""The whole use of an encoder as its documentation shows it: with the default sizes, trained, extracted."""

import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from gridloom import SemanticEncoder, create_semantic_encoder, train_system
from gridloom.systems.semantic import ModelConfig
from tests.encoders.toolkit import BLOCKS, LAYOUT, given
from tests.workflows.tiny import SHORT, tiny_config

SCRIPTS = Path(__file__).resolve().parents[2] / "examples" / "semantic"
BRIEF = replace(SHORT, steps=2, batch_size=4, warmup_steps=1, validate_every=2, checkpoint_every=2)


def run_script(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    """Run `NAME.py ARGUMENTS` of the folder of scripts, in this process; return its exit code."""
    name, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """A folder with the checkpoint of an autoencoder of the default size, and its encoder, extracted by the script."""
    folder = tmp_path_factory.mktemp("use")
    config = tiny_config(tiny_data, model=ModelConfig(), train=BRIEF)
    run = train_system("semantic", config, output=folder / "run", report=False)
    (folder / "path" / "to").mkdir(parents=True)
    tensors = safetensors.torch.load_file(run.folder / "artifact" / "model.safetensors")
    torch.save({"model_state_dict": tensors, "epoch": 2}, folder / "path" / "to" / "autoencoder_checkpoint.pth")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        command = "extract_encoder.py path/to/autoencoder_checkpoint.pth --output encoder_weights.pth --verify"
        assert run_script(monkeypatch, command) == 0
    return folder


@pytest.fixture
def weights(folder: Path) -> str:
    return str(folder / "encoder_weights.pth")


def test_every_block_of_the_documentation_runs_as_written(
    folder: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("encoder_weights.pth", "weights.pth", "path/to/weights.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(weights)
    monkeypatch.chdir(tmp_path)
    names = given()
    for title, block in BLOCKS.items():
        code = compile(block, title, "exec")
        if title.startswith("Q3"):
            with pytest.warns(UserWarning, match="its weights are random"):
                exec(code, names)
        else:
            exec(code, names)
        CHECKS[title](names, capsys.readouterr().out)


def check_frozen_extractor(names: dict, printed: str) -> None:
    assert names["embeddings"].shape == (4, 768) and not names["embeddings"].requires_grad


def check_managed(names: dict, printed: str) -> None:
    trainable = {name.split(".")[1] for name, item in names["encoder"].named_parameters() if item.requires_grad}
    assert trainable == {"layer3", "layer4", "head"}
    again, image = SemanticEncoder(pretrained_path="output_weights.pth"), names["img1"]
    assert torch.equal(again.encode(image), names["encoder"].encode(image))


def check_inferred(names: dict, printed: str) -> None:
    assert names["embeddings"].shape == (20, 768)
    array = names["encoder"].encode_numpy(names["numpy_input"], normalize=True)
    assert array.shape == (3, 768) and np.isfinite(array).all()


def check_asked(names: dict, printed: str) -> None:
    assert 11_000_000 < names["total_params"] < 12_500_000
    assert 0 < names["trainable_params"] < names["total_params"]
    expected = {"total_parameters", "trainable_parameters", "latent_dim", "input_channels", "device", "frozen"}
    assert expected <= names["info"].keys()
    assert "768" in printed and "stem" in printed


def check_features(names: dict, printed: str) -> None:
    assert names["features"].shape == (100, 768)


def check_backbone(names: dict, printed: str) -> None:
    model = names["MyModel"]()
    model(names["img1"]).sum().backward()
    moved = {
        name.split(".")[2] for name, item in model.named_parameters() if "backbone" in name and item.grad is not None
    }
    assert moved == {"layer2", "layer3", "layer4", "head"} and model.classifier.weight.grad is not None


def check_similar(names: dict, printed: str) -> None:
    ours = SemanticEncoder.similarity(names["feat1"], names["feat2"])
    assert names["similarity"].item() == pytest.approx(ours.item(), abs=1e-6)
    assert names["similarity"].item() > 0.9


def check_pipeline(names: dict, printed: str) -> None:
    depth_maps = np.random.default_rng(0).uniform(0.4, 8, (3, 128, 128))
    flat, with_channel = (names["process_depth_maps"](maps) for maps in (depth_maps, depth_maps[:, None]))
    assert flat.shape == (3, 768)
    np.testing.assert_array_equal(flat, with_channel)


def check_verified(names: dict, printed: str) -> None:
    assert "输出形状: torch.Size([1, 768])" in printed


def check_parameters(names: dict, printed: str) -> None:
    total, trainable = re.findall(r"参数: ([\d,]+)", printed)
    assert total == trainable == f"{names['encoder'].count_parameters():,}"
    assert "encoder.stem.0.weight: requires_grad=True" in printed


def check_timed(names: dict, printed: str) -> None:
    assert names["output"].shape == (32, 768)
    whole, single = (float(value) for value in re.findall(r"([\d.]+) ms", printed))
    assert single == pytest.approx(whole / 32, abs=0.01)


def check_four_dimensions(names: dict, printed: str) -> None:
    assert names["encoder"].encode(names["input_tensor"]).shape == (4, 768)


def check_large(names: dict, printed: str) -> None:
    assert names["embeddings"].shape == (20, 768) and str(names["encoder"].device) == "cpu"


def check_forced(names: dict, printed: str) -> None:
    assert printed.count("未冻结的参数") == len(list(names["encoder"].parameters()))
    assert names["encoder"].count_parameters(only_trainable=True) == 0


CHECKS = {
    "使用语义编码器": check_frozen_extractor,
    "权重管理": check_managed,
    "推理方法": check_inferred,
    "信息查询": check_asked,
    "1. 特征提取器": check_features,
    "2. 下游任务的Backbone": check_backbone,
    "3. 相似度计算": check_similar,
    "4. 数据处理流水线": check_pipeline,
    "权重验证": check_verified,
    "参数检查": check_parameters,
    "性能测试": check_timed,
    "Q2: 输入维度不匹配": check_four_dimensions,
    "Q3: 内存不足": check_large,
    "Q4: 参数冻结不生效": check_forced,
}


def test_a_file_of_weights_has_the_layout_of_the_documentation(weights: str) -> None:
    def shape_of(content: object, like: object) -> object:
        return (
            {key: shape_of(content[key], like.get(key)) for key in content} if isinstance(like, dict) else type(content)
        )

    expected = eval(LAYOUT)
    assert shape_of(torch.load(weights, weights_only=True), expected) == expected


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ("", "path/to/autoencoder_checkpoint_encoder.pth"),
        ("--output named.pth", "named.pth"),
        ("--output sized.pth --input_channels 1 --latent_dim 768", "sized.pth"),
        ("--output=hyphens.pth --input-channels=1 --latent-dim=768", "hyphens.pth"),
    ],
)
def test_each_spelling_of_extraction_writes_the_same(
    folder: Path, weights: str, options: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert run_script(monkeypatch, f"extract_encoder.py path/to/autoencoder_checkpoint.pth {options}") == 0
    first, second = (torch.load(file, weights_only=True)["encoder_state_dict"] for file in (weights, output))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("not_there.pth", "权重文件不存在"),
        ("path/to/autoencoder_checkpoint.pth --latent_dim 512", "512"),
        ("path/to/autoencoder_checkpoint.pth --input_channels 3", "3"),
        ("path/to/autoencoder_checkpoint.pth --output folder", "writes a .pth file"),
    ],
)
def test_what_cannot_be_extracted_is_one_line_and_exit_code_2(
    folder: Path, options: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    assert run_script(monkeypatch, f"extract_encoder.py {options}") == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_the_script_that_is_imported_has_the_names_of_the_package() -> None:
    names = runpy.run_path(str(SCRIPTS / "semantic_encoder.py"))
    assert names["SemanticEncoder"] is SemanticEncoder
    assert names["create_semantic_encoder"] is create_semantic_encoder


class Classifier(nn.Module):
    """A head on an encoder whose early layers are frozen."""

    def __init__(self, weights: str) -> None:
        super().__init__()
        self.backbone = SemanticEncoder(pretrained_path=weights, freeze_weights=False)
        self.backbone.freeze_layers(["stem", "layer1"])
        self.classifier = nn.Linear(768, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.backbone.encode(x))


def test_it_is_the_backbone_of_a_model_that_learns(weights: str) -> None:
    torch.manual_seed(0)
    model = Classifier(weights).train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    images, labels = torch.randn(5, 1, 32, 32), torch.arange(5)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "backbone.encoder.layer2.0.conv1.weight" in moved
    assert not any(name.startswith(("backbone.encoder.stem", "backbone.encoder.layer1.")) for name in moved)
