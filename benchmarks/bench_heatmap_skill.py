"""How good forecasts of heatmaps are, beside the dumb ones: flights by the hour, E-mini minutes, moving digits.

How: the frames and the split of the known figures (the last 20 % of the time are the test, the 10 % before choose).
One step ahead on every frame of the test, in one run, for all: squared error x 1e4 per pixel, and summed over a frame
as OpenSTL does it. Each model is trained on one thread with the library's preset; `latent path alone` has no local
network. Then several leads, from origins spread over the test: skill against persistence and against the slot's mean,
and for models with sample paths CRPS and what the 50 % and 90 % bands cover.
E-mini needs `pip install --no-deps mlfinpy==0.1.2`; without it its part is left out, and said so.
`--quick` trains a few steps. The usual run takes about 15 CPU minutes.
"""

from importlib.util import find_spec
from typing import Any

from common import Bench
from forecasting import ALL_ORIGINS, block_matching, errors, prepared, question, shorter, train_forecaster, with_samples

_PIXELS = 2 * 32 * 32
_GOALS = {"flights": 4.3, "emini": 19.0, "emini-spec": 10.7, "moving-digits": 120.0}
_LATENT_GOAL = 5.45
_PRESETS = {"flights": "flights", "emini": "es", "emini-spec": "es", "moving-digits": "digits"}
_LATENT: dict[str, dict[str, Any]] = {
    "flights": {
        "model.local": {"width": 0},
        "model.memory": {"seasonal": [[168, 0.2]], "lags": [], "deviation_lags": [], "deviation_averages": []},
    }
}
_LEADS = {"flights": (1, 3, 6, 24), "emini": (1, 3, 6, 24), "moving-digits": (1, 3, 6)}
_NUM_SAMPLES = 20
_NUM_ORIGINS = 120


def baselines(*, data: str, quick: bool) -> dict[str, Any]:
    """Every baseline, one step ahead on the whole test part."""
    from gridloom.systems.heatmap.baselines import BASELINES

    plain = {"model.residual": "none", "model.local": {"width": 0}, "model.motion": {"reach": 0}, "data.coarsen": [1]}
    config, parts = prepared(_PRESETS[data], {"data.path": data, **plain})
    task = question(config, leads=(1,), max_origins=32 if quick else ALL_ORIGINS)
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
        task = question(config, leads=(1,), max_origins=32 if quick else ALL_ORIGINS, split=split)
        answers = HeatmapForecaster(with_samples(trained, 0)).predict(task.given, task.wanted)
        result[split] = errors(task, answers)["1"]
    if not leads:
        return result
    task = question(config, leads=tuple(leads), max_origins=8 if quick else _NUM_ORIGINS)
    predictions = {}
    for name, build in BASELINES.items():
        predictor = build(config, parts.history)
        if predictor is not None:
            predictions[name] = predictor.predict(task.given, task.wanted)
    forecaster = HeatmapForecaster(with_samples(trained, 3 if quick else _NUM_SAMPLES))
    predictions["heatmap"] = forecaster.predict(task.given, task.wanted)
    result["errors"] = {name: errors(task, answers) for name, answers in predictions.items()}
    scores = forecast_scores(task, predictions, config.seed, max_slots=0)
    kept = ("metric", "group", "value", "low", "high")
    result["scores"] = [{key: getattr(one, key) for key in kept} for one in scores if one.method == "heatmap"]
    return result


def main() -> None:
    """Measure all data, and print the tables."""
    bench = Bench(
        __file__,
        __doc__ or "",
        sources=("systems/heatmap", "nn/causal.py", "evaluate/baselines/forecast.py", "evaluate/baselines/ridge.py"),
    )
    rows: list[list[Any]] = []
    by_lead: list[list[Any]] = []
    spread: list[list[Any]] = []
    for data in ("flights", "moving-digits", "emini", "emini-spec"):
        if data.startswith("emini") and find_spec("mlfinpy") is None:
            print(f"  {data}: left out, mlfinpy is not installed (pip install --no-deps mlfinpy==0.1.2)")
            continue
        _measure(bench, data, rows, by_lead, spread)
    print("One step ahead, the whole test part")
    bench.table(
        ("data", "forecast", "MSE x 1e4 per pixel", "summed over a frame", "validation", "CPU s", "goal", ""), rows
    )
    print("Several leads, from origins spread over the test part: MSE x 1e4, skill with its 90 % interval")
    measures = ("persistence", "slot mean", "best baseline", "model", "skill vs persistence", "skill vs slot mean")
    bench.table(("data", "lead", *measures), by_lead)
    print("Sample paths: CRPS x 1e4 of pixels, of the totals of a channel; what the bands hold")
    bench.table(("data", "lead", "CRPS", "of totals", "totals in 50 %", "in 90 %", "pixels in 50 %", "in 90 %"), spread)
    bench.finish()


def _measure(bench: Bench, data: str, rows: list[Any], by_lead: list[Any], spread: list[Any]) -> None:
    """Baselines and models of one data set."""
    simple = bench.cell(f"{data} baselines", baselines, data=data, quick=bench.quick)
    for name, value in simple.items():
        rows.append([data, name, *_both(value), "", "", "", ""])
    found = bench.cell(
        f"{data} model", model, data=data, settings={}, quick=bench.quick, leads=list(_LEADS.get(data, ()))
    )
    word = bench.goal(f"{data}, one step: at most {_GOALS[data]}", found["test"] <= _GOALS[data])
    rows.append(_row(data, f"preset {_PRESETS[data]}", found, _GOALS[data], word))
    bench.figure(data, {"baselines": simple, "model": found["test"], "cpu_seconds": found["cpu_seconds"]})
    if data in _LATENT:
        alone = bench.cell(f"{data} latents", model, data=data, settings=_LATENT[data], quick=bench.quick, leads=[])
        word = bench.goal(f"{data}, latent path alone: at most {_LATENT_GOAL}", alone["test"] <= _LATENT_GOAL)
        rows.append(_row(data, "latent path alone, on the slot's following mean", alone, _LATENT_GOAL, word))
        bench.figure(f"{data}, latent path alone", alone["test"])
    _leads(data, found, by_lead, spread, bench)


def _leads(data: str, found: dict[str, Any], by_lead: list[Any], spread: list[Any], bench: Bench) -> None:
    """Rows of several leads."""
    scores = {(one["metric"], one["group"]): one for one in found.get("scores", ())}
    apart: list[float] = []
    for lead in _LEADS.get(data, ()) if scores else ():
        group = f"lead={lead}"
        cells = {name: values[str(lead)] for name, values in found["errors"].items() if str(lead) in values}
        best = min((value, name) for name, value in cells.items() if name != "heatmap")
        skills = [_interval(scores.get((f"skill vs {name}", group))) for name in ("persistence", "slot mean")]
        shown = [f"{cells[name]:.2f}" for name in ("persistence", "slot mean")]
        by_lead.append([data, lead, *shown, f"{best[0]:.2f} {best[1]}", f"{cells['heatmap']:.2f}", *skills])
        if ("crps", group) not in scores or found.get("scores") is None:
            continue
        bands = [
            scores.get((f"coverage {level} %", f"{what} {group}"), {"value": float("nan")})["value"]
            for what in ("total", "pixel")
            for level in (50, 90)
        ]
        apart += [abs(band - level) for band, level in zip(bands, (0.5, 0.9, 0.5, 0.9), strict=True)]
        crps = [scores[metric, group]["value"] * scale for metric, scale in (("crps", 1e4), ("crps of total", 1.0))]
        spread.append([data, lead, *(f"{value:.3f}" for value in (*crps, *bands))])
    if apart:
        share = sum(value <= 0.05 for value in apart) / len(apart)
        bench.goal(f"{data}, bands within 5 points at every lead", max(apart) <= 0.05)
        bench.figure(f"{data}, bands within 5 points", f"{share:.0%} of {len(apart)}, largest {max(apart):.3f}")


def _interval(score: dict[str, float] | None) -> str:
    return "" if score is None else f"{score['value']:.2f} ({score['low']:.2f} to {score['high']:.2f})"


def _both(value: float) -> tuple[float, float]:
    return round(value, 3), round(value * _PIXELS * 1e-4, 3)


def _row(data: str, name: str, found: dict[str, Any], goal: float, word: str) -> list[Any]:
    seconds = round(found["cpu_seconds"])
    return [data, name, *_both(found["test"]), f"{found['validation']:.3f}", seconds, f"at most {goal}", word]


if __name__ == "__main__":
    main()
