"""Everything an encoder does, in six parts, on the relief of the Earth: `python usage_example.py`.

Takes about a quarter of a minute on one core. The autoencoder is small and trained briefly; raise `train.steps` for one
that is of use. All files go into a new temporary folder, whose name is printed.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from semantic_encoder import SemanticEncoder, create_semantic_encoder
from torch import nn

import gridloom


def extract_from_autoencoder(folder: Path) -> Path:
    print("1. Extract the encoder of a trained autoencoder")
    settings = {
        "model.width": 8,
        "model.latent_dim": 768,
        "data.stride": [32, 32],
        "train.steps": 40,
        "train.batch_size": 8,
    }
    config = gridloom.configure("semantic", preset="elevation", settings=settings)
    run = gridloom.train_system("semantic", config, output=folder / "run", report=False)
    weights = gridloom.extract_encoder(run.folder, folder / "encoder_weights.pth", verify=True)
    print(f"   {weights.num_parameters:,} parameters in {weights.output.name}, bit-equal after reading back")
    return weights.output


def use(weights: Path) -> SemanticEncoder:
    print("2. Make an encoder of the file, for fine-tuning or frozen")
    encoder = SemanticEncoder(input_channels=1, latent_dim=768, pretrained_path=weights, freeze_weights=False)
    frozen = create_semantic_encoder(pretrained_path=weights, freeze_weights=True)
    print(f"   {encoder}\n   frozen: {frozen.count_parameters(only_trainable=True)} trainable parameters")
    return encoder


def infer(encoder: SemanticEncoder, images: np.ndarray) -> None:
    print("3. Encode tensors, large batches, arrays in data units, and datasets with coordinates")
    print(f"   tensor        {tuple(encoder.encode(torch.randn(4, 1, 128, 128)).shape)}")
    print(f"   large tensor  {tuple(encoder.encode_batch(torch.randn(40, 1, 128, 128), batch_size=16).shape)}")
    print(f"   array         {encoder.encode_numpy(images, normalize=True).shape}")
    print(f"   dataset       {dict(encoder.encode_dataset('etopo20').sizes)}")


def control_parameters(encoder: SemanticEncoder) -> None:
    print("4. Freeze and thaw")
    encoder.freeze_parameters(True)
    print(f"   all frozen:                 {encoder.count_parameters(only_trainable=True):9,} trainable")
    encoder.freeze_parameters(False)
    encoder.freeze_layers(["stem", "layer1", "layer2"])
    print(f"   stem, layer1 and 2 frozen:  {encoder.count_parameters(only_trainable=True):9,} trainable")
    encoder.freeze_parameters(False)
    print(f"   all thawed:                 {encoder.get_model_info()['trainable_parameters']:9,} trainable")


def apply(weights: Path, images: np.ndarray) -> None:
    print("5. Find what is alike, and build on the encoder")
    extractor = SemanticEncoder(pretrained_path=weights, freeze_weights=True)
    features = torch.from_numpy(extractor.encode_numpy(images))
    alike = extractor.similarity(features, features).fill_diagonal_(-1)
    first, second = divmod(int(alike.argmax()), len(alike))
    print(f"   of {len(images)} tiles of the globe, {first} and {second} are most alike: cosine {alike.max():.3f}")

    backbone = SemanticEncoder(pretrained_path=weights)
    backbone.freeze_layers(["stem", "layer1"])
    model = nn.Sequential(backbone, nn.Linear(backbone.latent_dim, 1)).train()
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3)
    inputs = torch.from_numpy(images[:, None] / 5000)
    is_land = torch.from_numpy((images > 0).mean((1, 2)) > 0.5).float()[:, None]
    for step in range(6):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), is_land)
        loss.backward()
        optimizer.step()
        if step in (0, 5):
            print(f"   land or sea, step {step}: loss {loss.item():.3f}")


def save_and_load(encoder: SemanticEncoder, folder: Path, images: np.ndarray) -> None:
    print("6. Save and load")
    encoder.save_encoder_weights(folder / "output_weights.pth")
    again = create_semantic_encoder(folder / "output_weights.pth")
    again.load_pretrained_weights(folder / "encoder_weights.pth")
    same = np.array_equal(again.encode_numpy(images[:4]), encoder.encode_numpy(images[:4]))
    print(f"   from a .pth file the same embeddings, to the bit: {same}")
    whole = SemanticEncoder.from_pretrained(folder / "run")
    whole.save_pretrained(folder / "encoder")
    print(
        f"   a folder keeps the training statistics too: {sorted(path.name for path in (folder / 'encoder').iterdir())}"
    )


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="gridloom-"))
    relief = gridloom.open_grid("etopo20")["elevation"].values[:512, :1024].astype(np.float32)
    images = relief.reshape(4, 128, 8, 128).swapaxes(1, 2).reshape(32, 128, 128)
    weights = extract_from_autoencoder(folder)
    encoder = use(weights)
    infer(encoder, images)
    control_parameters(encoder)
    apply(weights, images)
    save_and_load(encoder, folder, images)
    print(f"All files are in {folder}")


if __name__ == "__main__":
    main()
