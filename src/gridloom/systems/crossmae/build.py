"""From a resolved configuration to the networks."""

from gridloom.core.contracts import FeatureSpec, FieldSpec, InputSpec
from gridloom.core.errors import ConfigError
from gridloom.systems.crossmae.config import CrossMAEConfig, ModalityConfig
from gridloom.systems.crossmae.decoder import DecoderShape
from gridloom.systems.crossmae.encoder import EncoderShape
from gridloom.systems.crossmae.inputs import KNOWN, PLACES, STATIC, TIMES
from gridloom.systems.crossmae.multimodal import Modality, MultiModalEncoder, MultiModalMAE
from gridloom.systems.crossmae.patches import ImagePatches, Patches, SeriesPatches

__all__ = ["build_encoder", "build_model", "cut_of", "known_channels", "place_features", "share_of", "time_features"]

SEASON_FEATURES, PLACE_FEATURES = 2, 2


def cut_of(config: CrossMAEConfig, name: str) -> Patches:
    """How a modality is cut into patches."""
    modality = config.modalities[name]
    if modality.kind == "image":
        return ImagePatches(*modality.size, config.model.image_patch)
    return SeriesPatches(modality.size[0], config.model.vector_patch, max(1, len(modality.variables)))


def known_channels(config: CrossMAEConfig, name: str) -> int:
    """Channels that a background adds to each cell of an image: its estimates, and the spread of the first."""
    kinds = config.background.kinds if config.modalities[name].kind == "image" else ()
    return len(kinds) + 1 if kinds else 0


def time_features(config: CrossMAEConfig) -> int:
    """Numbers of each time."""
    return SEASON_FEATURES if config.model.season else 0


def place_features(config: CrossMAEConfig) -> int:
    """Numbers of each place."""
    return PLACE_FEATURES if config.model.place else 0


def build_model(config: CrossMAEConfig) -> MultiModalMAE:
    """The whole model."""
    return MultiModalMAE(
        _modalities(config),
        config.static_dim,
        config.model.fusion,
        static=config.model.static,
        spread=config.loss.kind == "nll",
        time_features=time_features(config),
        place_features=place_features(config),
        inputs=_inputs(config),
    )


def build_encoder(config: CrossMAEConfig) -> MultiModalEncoder:
    """The encoder alone; its weights are those of the model's `encoder`."""
    return MultiModalEncoder(
        _modalities(config),
        config.static_dim,
        config.model.fusion,
        static=config.model.static,
        time_features=time_features(config),
        place_features=place_features(config),
        inputs=_inputs(config),
    )


def share_of(config: CrossMAEConfig, name: str) -> float:
    """Share of the patches of a modality that is hidden."""
    modality = config.modalities[name]
    if not modality.target:
        return 0.0
    return modality.share if modality.share >= 0 else config.masking.share


def _modalities(config: CrossMAEConfig) -> dict[str, Modality]:
    if not config.modalities:
        raise ConfigError("no modalities: they are filled in from the data (resolve), or given as modalities.NAME")
    deepest = max(_depth(config, modality) for modality in config.modalities.values())
    for layer in config.model.use_fm_layers or ():
        if not 0 <= layer < deepest:
            raise ConfigError(f"model.use_fm_layers must lie between 0 and {deepest - 1}, got {layer}")
    return {
        name: Modality(
            patches=cut_of(config, name),
            encoder=_encoder_shape(config, modality),
            decoder=_decoder_shape(config),
            known_channels=known_channels(config, name),
            static=modality.kind == "vector" or all(one.kind == "image" for one in config.modalities.values()),
        )
        for name, modality in config.modalities.items()
    }


def _depth(config: CrossMAEConfig, modality: ModalityConfig) -> int:
    return config.model.image_depth if modality.kind == "image" else config.model.vector_depth


def _encoder_shape(config: CrossMAEConfig, modality: ModalityConfig) -> EncoderShape:
    model, layers = config.model, _depth(config, modality)
    chosen = model.use_fm_layers  # an encoder with fewer layers takes those that it has
    return EncoderShape(
        dim=model.dim,
        depth=layers,
        num_heads=model.num_heads,
        mlp_ratio=model.mlp_ratio,
        dropout=model.dropout,
        pool=model.architecture.startswith("pooled"),
        feature_maps=model.architecture == "cross_maps",
        use_fm_layers=None if chosen is None else tuple(layer for layer in chosen if layer < layers),
        use_input=model.use_input,
        normalize_maps=model.normalize_maps,
    )


def _decoder_shape(config: CrossMAEConfig) -> DecoderShape:
    model = config.model
    return DecoderShape(
        dim=model.decoder_dim,
        depth=model.decoder_depth,
        num_heads=model.decoder_heads,
        mlp_ratio=model.mlp_ratio,
        dropout=model.dropout,
        self_attention=model.self_attention,
        attention="self" if model.architecture.endswith("self") else "cross",
    )


def _inputs(config: CrossMAEConfig) -> InputSpec:
    """What the encoder takes when it stands alone."""
    times = config.data.window[0]
    fields: dict[str, FieldSpec] = {}
    features: dict[str, FeatureSpec] = {}
    places: tuple[int, ...] = ()  # those that static attributes belong to
    for name, modality in config.modalities.items():
        variables = modality.variables or (name,)
        dims: tuple[str, ...] = ("time", "y", "x")
        size: tuple[int, ...] = (times, *modality.size)
        if modality.kind == "vector":
            dims, size = ("place", "time", "feature"), (modality.size[0], times, len(variables))
            places = modality.size[:1]
        fields[name] = FieldSpec(dims=dims, size=size, variables=variables)
        channels = known_channels(config, name)
        if channels:
            fields[name + KNOWN] = FieldSpec(dims=(*dims, "channel"), size=(*size, channels))
        if place_features(config):
            shape = (cut_of(config, name).num_places, place_features(config))
            features[name + PLACES] = FeatureSpec(dims=("place", "feature"), size=shape, dtype="float32")
    if time_features(config):
        features[TIMES] = FeatureSpec(dims=("time", "feature"), size=(times, time_features(config)), dtype="float32")
    if config.static_dim:
        of_places = ("place", "attribute") if places else ("attribute",)
        fields[STATIC] = FieldSpec(dims=of_places, size=(*places, config.static_dim))
    return InputSpec(fields=fields, features=features)
