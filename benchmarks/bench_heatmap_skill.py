"""How good forecasts of heatmaps are, beside the dumb ones: flights by the hour, E-mini minutes, moving digits.

How: the frames and the split of the known figures (the last 20 % of the time are the test, the 10 % before choose).
One step ahead on every frame of the test, in one run, for all: squared error x 1e4 per pixel, and summed over a frame
as OpenSTL does it. Each model is trained on one thread with the library's preset; `latent path alone` has no local
network. Then several leads, from origins spread over the test: skill against persistence and against the slot's mean,
and for models with sample paths CRPS and what the 50 % and 90 % bands cover.
E-mini needs `pip install --no-deps mlfinpy==0.1.2`; without it its part is left out, and said so.
`--quick` trains a few steps. The usual run takes about 15 CPU minutes.
"""

from typing import Any

from forecasting import ALL_ORIGINS, block_matching, errors, question, shorter, train_forecaster, with_samples

_PIXELS = 2 * 32 * 32
_GOALS = {"flights": 4.3, "emini": 19.0, "emini-spec": 10.7, "moving-digits": 120.0}
_LATENT_GOAL = 5.45
_PRESETS = {"flights": "flights", "emini": "es", "emini-spec": "es", "moving-digits": "digits"}
_LATENT = {"flights": {"model.local": {"width": 0}}}
_LEADS = {"flights": (1, 3, 6, 24), "emini": (1, 3, 6, 24), "moving-digits": (1, 3, 6)}
_NUM_SAMPLES = 20
_NUM_ORIGINS = 120


def baselines(*, data: str, quick: bool) -> dict[str, Any]:
    """Every baseline, one step ahead on the whole test part."""
    from forecasting import prepared

    from gridloom.systems.heatmap.baselines import BASELINES

    config, parts = prepared(
        _PRESETS[data], {"data.path": data, "model.memory": {}, "model.residual": "last", "model.local": {"width": 0}}
    )
    task = question(config, parts, leads=(1,), max_origins=32 if quick else ALL_ORIGINS)
    found = {}
    for name, build in BASELINES.items():
        predictor = build(config, parts.history)
        if predictor is not None:
            found[name] = errors(task, predictor.predict(task.given, task.wanted))["1"]
    if data == "moving-digits":
        found["block matching"] = errors(task, block_matching().predict(task.given, task.wanted))["1"]
    return found


def model(*, data: str, settings: dict[str, Any], quick: bool, leads: list[int]) -> dict[str, Any]:
    """Train, and ask for the next frame of the whole test part; then for several leads."""
    from gridloom.evaluate.forecast import forecast_scores
    from gridloom.systems.heatmap.baselines import BASELINES
    from gridloom.systems.heatmap.predict import HeatmapForecaster

    trained, parts, seconds = train_forecaster(_PRESETS[data], shorter({"data.path": data, **settings}, quick))
    config = trained.config
    result: dict[str, Any] = {"cpu_seconds": seconds}
    for split in ("validation", "test"):
        task = question(config, parts, leads=(1,), max_origins=32 if quick else ALL_ORIGINS, split=split)
        answers = HeatmapForecaster(with_samples(trained, 0)).predict(task.given, task.wanted)
        result[split] = errors(task, answers)["1"]
    if not leads:
        return result
    task = question(config, parts, leads=tuple(leads), max_origins=8 if quick else _NUM_ORIGINS)
    predictions = {}
    for name, build in BASELINES.items():
        predictor = build(config, parts.history)
        if predictor is not None:
            predictions[name] = predictor.predict(task.given, task.wanted)
    forecaster = HeatmapForecaster(with_samples(trained, 3 if quick else _NUM_SAMPLES))
    predictions["heatmap"] = forecaster.predict(task.given, task.wanted)
    result["errors"] = {name: errors(task, answers) for name, answers in predictions.items()}
    result["scores"] = [
        vars(score) for score in forecast_scores(task, predictions, config.seed) if score.method == "heatmap"
    ]
    return result
