"""SemanticEncoder: one face for the encoder of any system."""

import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor, nn

from gridloom.core.batch import Batch, Field
from gridloom.core.contracts import Encoder, FieldSpec
from gridloom.core.errors import CheckpointError, DataError, UnknownNameError
from gridloom.core.random import window_keys
from gridloom.core.registry import get_system
from gridloom.core.settings import RunConfig
from gridloom.core.system import System
from gridloom.encoders.arrays import MissingPolicy, as_fields, handle_missing, scale_by_own_range
from gridloom.encoders.artifact import describe_inputs, load_encoder, write_artifact
from gridloom.encoders.extract import encoder_from_file, save_torch, seed_layout
from gridloom.encoders.fitting import probe_batch
from gridloom.encoders.match import load_strictly, pick_encoder
from gridloom.encoders.reduced import Precision, ReducedCopy, check_precision
from gridloom.encoders.sharded import METADATA
from gridloom.encoders.weights import read_weights
from gridloom.grid.normalize import Normalizer
from gridloom.systems.semantic.config import ModelConfig, SemanticConfig

__all__ = ["SemanticEncoder", "create_semantic_encoder"]

_LOGGER = logging.getLogger(__name__)


class SemanticEncoder(nn.Module):
    """An encoder, ready to use: encode, freeze, save, ask.

    It starts in eval mode: an embedding never depends on the other samples of a call. Called in a model that trains,
    it follows `.train()` and keeps gradients, except for what is frozen.

    Args:
        input_channels: Data channels: 1 for depth or gray, 3 for RGB.
        latent_dim: Size of the embedding.
        pretrained_path: File of weights (`.pth`, `.safetensors`), artifact or run folder. Without it the weights are
            random, and a warning says so.
        freeze_weights: Freeze everything.
        device: `"cuda"`, `"cpu"`; None takes CUDA where there is one.

    Raises:
        CheckpointError: The file is not there, has no encoder, or does not fit.
    """

    def __init__(
        self,
        input_channels: int = 1,
        latent_dim: int = 768,
        pretrained_path: str | Path | None = None,
        freeze_weights: bool = False,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        self._begin()
        if pretrained_path is None:
            warnings.warn(
                "SemanticEncoder without pretrained_path: its weights are random; pass a file or folder of weights",
                stacklevel=2,
            )
            config = SemanticConfig(model=ModelConfig(input_channels=input_channels, latent_dim=latent_dim))
            system = get_system("semantic")
            assert system.encoder is not None
            self._adopt(system.encoder(config), system, config, {})
        else:
            self._load(Path(pretrained_path), input_channels=input_channels, latent_dim=latent_dim)
        self.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        self.eval()
        if freeze_weights:
            self.freeze_parameters(True)

    def _begin(self) -> None:
        self._frozen_modules: set[str] = set()
        self._reduced = ReducedCopy()

    def _adopt(self, encoder: Encoder, system: System, config: RunConfig, normalizer: Mapping[str, Any]) -> None:
        # This layout saves a reordering of the weights in each call.
        self.encoder: Encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._system, self._config, self._normalizer_record = system, config, dict(normalizer)
        self._normalizer = Normalizer.from_json(normalizer) if normalizer else None

    def _load(self, path: Path, *, input_channels: int | None, latent_dim: int | None) -> None:
        if path.is_dir() and not (path / METADATA).is_file():
            loaded = load_encoder(path)
            self._adopt(loaded.encoder, loaded.artifact.system, loaded.artifact.config, loaded.normalizer)
            self._check_sizes(path, input_channels, latent_dim)
        else:
            found = encoder_from_file(path, input_channels=input_channels, latent_dim=latent_dim)
            self._adopt(found.encoder, found.system, found.config, found.normalizer)

    def _check_sizes(self, path: Path, input_channels: int | None, latent_dim: int | None) -> None:
        for name, asked in (("input_channels", input_channels), ("latent_dim", latent_dim)):
            actual = getattr(self, name)
            if asked is not None and actual != asked:
                raise CheckpointError(
                    f"{path}: {name} is {actual}, {asked} was asked; pass {name}={actual}, "
                    f"or use SemanticEncoder.from_pretrained, which takes what is there"
                )

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str | torch.device | None = None) -> "SemanticEncoder":
        """Load the encoder of any system from an artifact, a run folder or a file, sizes as they are there."""
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        self._begin()
        self._load(Path(path), input_channels=None, latent_dim=None)
        self.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        return self.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write an encoder artifact: weights, input specification, normalizer, card."""
        write_artifact(
            Path(folder),
            self.encoder,
            kind="encoder",
            system=self._system,
            config=self._config,
            normalizer=self._normalizer_record,
            training={},
        )

    def load_pretrained_weights(self, path: str | Path) -> None:
        """Load weights into this encoder: all of them, or an error and nothing changed.

        Raises:
            CheckpointError: Not there, no encoder in it, or another shape.
        """
        path = Path(path)
        if path.is_dir():
            tensors: Mapping[str, Tensor] = load_encoder(path).encoder.state_dict()
        else:
            tensors = pick_encoder(path, read_weights(path), anchor=next(iter(self.encoder.state_dict())))
        load_strictly(path, self.encoder, {name: tensor.to(self.device) for name, tensor in tensors.items()})

    def save_encoder_weights(self, path: str | Path) -> None:
        """Write the weights in the seed's `.pth` layout (weights alone; `save_pretrained` keeps the statistics too)."""
        save_torch(Path(path), seed_layout(self.encoder, "SemanticEncoder.save_encoder_weights"))

    def freeze_parameters(self, freeze: bool = True) -> None:
        """Freeze everything, or thaw everything."""
        self._frozen_modules = {""} if freeze else set()
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(not freeze)
        self.train(self.training)

    def freeze_layers(self, names: Iterable[str]) -> None:
        """Freeze modules by name (`stem`, `layer1`, `layer2.0`); `layer1` is not `layer10`.

        Raises:
            UnknownNameError: No such module; names the nearest. Nothing is frozen then.
        """
        names = [names] if isinstance(names, str) else list(names)
        known = [name for name, _ in self.encoder.named_modules() if name]
        for name in names:
            if name not in known:
                raise UnknownNameError("layer", name, known if "." in name else [n for n in known if "." not in n])
        for name in names:
            self._frozen_modules.add(name)
            for parameter in self.encoder.get_submodule(name).parameters():
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SemanticEncoder":
        """Set the mode; what is frozen stays in eval mode, so that its statistics do not move."""
        super().train(mode)
        for name in self._frozen_modules:
            self.encoder.get_submodule(name).eval()
        return self

    def forward(self, x: Tensor | Batch) -> Tensor:
        """The same as `encode`."""
        return self.encode(x)

    def encode(self, x: Tensor | Batch, *, output: str = "embedding") -> Float[Tensor, "batch feature *places"]:
        """Encode normalized input.

        Mode and gradients are the caller's: in eval mode (as it starts) statistics are fixed; gradients flow unless
        frozen or inside `torch.inference_mode()` / `torch.no_grad()`.

        Args:
            x: `[B, C, H, W]` where the encoder takes one field, NaN being missing; otherwise a `Batch`.
            output: Which of the encoder's outputs: `embedding`, which every encoder has, or another one of
                `get_model_info()["outputs"]` (`map` of an encoder with a latent map).

        Returns:
            Embeddings `[B, latent_dim]` (or the other output) on the encoder's device.

        Raises:
            DataError: Wrong number of dimensions or channels, or a tensor where a batch is needed.
            UnknownNameError: No such output.
        """
        if output not in self.encoder.outputs:
            raise UnknownNameError("output", output, self.encoder.outputs)
        batch = x if isinstance(x, Batch) else self._to_batch(x)
        return self.encoder(batch.to(self.device))[output]  # type: ignore[no-any-return]

    def _to_batch(self, x: Tensor) -> Batch:
        name, spec = self._one_field("a tensor")
        if not isinstance(x, Tensor):
            raise DataError(f"encode expects a tensor or a Batch, got {type(x).__name__}; use encode_numpy for arrays")
        dims = len(spec.dims) + 1
        if x.ndim != dims:
            shape = "x".join(map(str, x.shape))
            place, what = (0, "batch") if x.shape[0] == self.input_channels != 1 else (1, "channel")
            mend = f" Add the {what} dimension with x.unsqueeze({place})." if x.ndim == dims - 1 else ""
            raise DataError(
                f"Expected {dims}D tensor, got {x.ndim}D tensor ({shape}): [B, {', '.join(spec.dims)}].{mend}"
            )
        dtype = next(self.encoder.parameters()).dtype
        field = Field.of(x.to(self.device, dtype))
        window = torch.arange(len(x))
        return Batch(fields={name: field}, features={}, window=window, key=window_keys(0, 0, range(len(x))))

    def _one_field(self, what: str) -> tuple[str, FieldSpec]:
        inputs = self.encoder.inputs
        if len(inputs.fields) != 1 or inputs.features:
            raise DataError(f"this encoder cannot take {what}; pass a Batch with {describe_inputs(inputs)}")
        return next(iter(inputs.fields.items()))

    @torch.inference_mode()
    def _encode_quietly(self, x: Tensor | Batch, precision: Precision = "fp32") -> Tensor:
        """Encode with eval-mode statistics and no gradients; every module's mode is as before afterwards."""
        check_precision(precision)
        batch = (x if isinstance(x, Batch) else self._to_batch(x)).to(self.device)
        if precision == "bf16":
            return self._reduced.encode(self.encoder, batch)
        modes = {module: module.training for module in self.modules()}
        nn.Module.train(self, False)
        try:
            return self.encoder(batch)["embedding"]  # type: ignore[no-any-return]
        finally:
            for module, mode in modes.items():
                module.training = mode

    def encode_batch(
        self,
        x: Float[Tensor, "batch ..."],
        batch_size: int = 16,
        show_progress: bool | None = None,
        *,
        precision: Precision = "fp32",
    ) -> Float[Tensor, "batch feature"]:
        """Encode a large tensor part by part, in eval mode and without gradients; the mode is restored.

        Args:
            x: `[N, C, H, W]`, on any device.
            batch_size: Samples at a time.
            show_progress: Show a bar; None shows it for more than 50 parts on a terminal.
            precision: `bf16` computes the network in bfloat16 (weights of a cached copy; the embeddings come out in
                float32, about 1e-2 off): two to three times faster on a CPU with AVX512-BF16 or AMX, or a GPU; slower
                on other CPUs.

        Returns:
            Embeddings on the device of `x`.
        """
        if batch_size < 1:
            raise DataError(f"batch_size must be at least 1, got {batch_size}")
        starts: Iterable[int] = range(0, len(x), batch_size)
        if show_progress or (show_progress is None and len(x) > 50 * batch_size):
            starts = _progress(starts, math.ceil(len(x) / batch_size), force=bool(show_progress))
        if len(x) == 0:
            self._to_batch(x)
            return torch.zeros(0, self.latent_dim, device=x.device)
        parts = [self._encode_quietly(x[start : start + batch_size], precision).to(x.device) for start in starts]
        return torch.cat(parts).clone()

    def encode_numpy(
        self,
        array: np.ndarray,
        batch_size: int = 32,
        normalize: bool = True,
        *,
        missing: MissingPolicy = "mask",
        fill_value: float = 0.0,
        precision: Precision = "fp32",
    ) -> np.ndarray:
        """Encode an array of fields, each on its own.

        Args:
            array: `[H, W]`, `[N, H, W]` (one channel) or `[N, C, H, W]`; any dtype, byte order or memory layout; the
                mask of a masked array is kept.
            batch_size: Fields at a time.
            normalize: Values are in data units: normalize them with the training statistics that came with the
                weights. Where none did (the seed's layout), each field is scaled to [-1, 1] by its own valid minimum
                and maximum, a constant one to 0.
            missing: What to do with NaN, infinite and masked cells: tell the encoder (`mask`), refuse (`raise`), or
                take `fill_value` in data units (`fill`).
            fill_value: For `missing="fill"`.
            precision: As in `encode_batch`.

        Returns:
            Embeddings `[N, latent_dim]`, float32.

        Raises:
            DataError: Another shape or dtype, or missing cells with `missing="raise"`.
        """
        variables = self._one_field("an array")[1].variables
        fields = as_fields(array, channels=self.input_channels, variables=variables)
        fields = handle_missing(fields, missing, fill_value)
        if normalize and self._normalizer is not None:
            fields = np.stack([self._normalizer.apply(name, fields[:, i]) for i, name in enumerate(variables)], axis=1)
        elif normalize:
            fields = scale_by_own_range(fields)
        tensor = torch.from_numpy(fields)
        return self.encode_batch(tensor, batch_size=batch_size, precision=precision).cpu().numpy()

    def encode_dataset(
        self,
        data: xr.Dataset | xr.DataArray | str | Path,
        *,
        batch_size: int = 32,
        stride: Mapping[str, int] | tuple[int, int] | None = None,
        window: tuple[int, int] | None = None,
        precision: Precision = "fp32",
    ) -> xr.DataArray:
        """Encode every window of a dataset; coordinates in, coordinates out.

        Args:
            data: A dataset, a data array (one variable), or a path that `gridloom.grid.read.open_grid` reads; in data
                units, NaN is missing.
            batch_size: Windows at a time.
            stride: Step between windows by dimension, or down and across; default is the window's size (no overlap).
                A last window is aligned to the end, so that the whole grid is covered.
            window: Height and width of a window in cells, multiples of what the encoder divides by (32, for a latent
                map 8); default is what it was trained on.
            precision: As in `encode_batch`.

        Returns:
            Embeddings with the dataset's dimensions (one entry per window, at its center) and `feature`, and a
            coordinate `missing_share`. A window without any valid cell has a NaN embedding.
        """
        from gridloom.encoders.bulk import encode_dataset

        return encode_dataset(self, data, batch_size=batch_size, stride=stride, window=window, precision=precision)

    @staticmethod
    def similarity(a: Tensor | np.ndarray, b: Tensor | np.ndarray) -> Float[Tensor, "n m"]:
        """Cosine similarity of every row of `a` [n, feature] with every row of `b` [m, feature], as a tensor.

        Raises:
            DataError: Not rows of equally many features.
        """
        first, second = torch.as_tensor(a), torch.as_tensor(b)
        if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
            raise DataError(
                f"similarity compares rows: expected [n, feature] and [m, feature], "
                f"got {list(first.shape)} and {list(second.shape)}"
            )
        return nn.functional.normalize(first, dim=-1) @ nn.functional.normalize(second, dim=-1).T

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.encoder.parameters()).device

    @property
    def input_channels(self) -> int:
        """Data channels of the one field; 0 where the encoder takes several fields."""
        fields = list(self.encoder.inputs.fields.values())
        return (
            fields[0].size[fields[0].dims.index("channel")] if len(fields) == 1 and "channel" in fields[0].dims else 0
        )

    @property
    def latent_dim(self) -> int:
        """Size of the embedding: what the configuration says, or measured on a probe batch."""
        known = getattr(getattr(self.encoder, "config", None), "latent_dim", None)
        if known is None:
            known = self._encode_quietly(probe_batch(self.encoder.inputs, 1)).shape[-1]
        return int(known)

    @property
    def normalizer(self) -> Normalizer | None:
        """Training statistics; None where the weights came without."""
        return self._normalizer

    def count_parameters(self, only_trainable: bool = False) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.encoder.parameters() if p.requires_grad or not only_trainable)

    def get_model_info(self) -> dict[str, Any]:
        """What this encoder is: sizes, device, what is frozen, which system and variables."""
        trainable = self.count_parameters(only_trainable=True)
        inputs = self.encoder.inputs
        return {
            "system": self._system.name,
            "total_parameters": self.count_parameters(),
            "trainable_parameters": trainable,
            "latent_dim": self.latent_dim,
            "input_channels": self.input_channels,
            "inputs": describe_inputs(inputs),
            "outputs": {name: list(dims) for name, dims in self.encoder.outputs.items()},
            "variables": [name for spec in inputs.fields.values() for name in spec.variables],
            "device": str(self.device),
            "frozen": trainable == 0,
            "frozen_layers": sorted(self._frozen_modules - {""}),
            "normalizer": sorted(self._normalizer.variables) if self._normalizer is not None else None,
        }

    def __repr__(self) -> str:
        info = self.get_model_info()
        state = "frozen" if info["frozen"] else f"{info['trainable_parameters']:,} trainable"
        layers = f", frozen layers {info['frozen_layers']}" if info["frozen_layers"] else ""
        return (
            f"SemanticEncoder(system={info['system']}, inputs={info['inputs']}, "
            f"input_channels={info['input_channels']}, latent_dim={info['latent_dim']}, "
            f"parameters={info['total_parameters']:,} ({state}){layers}, device={info['device']})"
        )


def _progress(starts: Iterable[int], total: int, *, force: bool) -> Iterable[int]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(starts, "encoding", total=total, console=console, disable=not (console.is_terminal or force))


def create_semantic_encoder(
    pretrained_path: str | Path | None,
    input_channels: int = 1,
    latent_dim: int = 768,
    freeze_weights: bool = False,
    device: str | torch.device | None = None,
) -> SemanticEncoder:
    """Make a `SemanticEncoder`; the same arguments in another order."""
    return SemanticEncoder(input_channels, latent_dim, pretrained_path, freeze_weights, device)
