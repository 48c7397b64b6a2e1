"""How much flicker filters remove, and what it costs in detail, on four clips of real video.

How: means of 4 x 4 pixels with independent noise of .15 of each channel's own deviation; the clean frames are known.
Flow comes from the clean frames (OpenCV DIS, medium), and is the same for all. Scores from frame 8 on, offline filters
not in the last 8 either: error over the variance of the noise; bias, the same for the clean frames filtered with the
weights frozen; temporal variation of the error over that of the input; sharpness of the frozen run; distance of the
warping error from that of the clean clip, which alone says nothing. The learned gate is trained three times, on the
videos that are not the tested one (the two clips of bikes are one video). Then weaker and stronger noise, flow
estimated from the noisy frames, no flow, noise that is smooth or the same in a whole frame, noise whose strength must
be estimated, and the frames after a cut that nobody announces.
`--quick` takes one clip, and trains a few steps. The usual run takes about 10 CPU minutes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common import Bench
from flicker import CUT, NAMES, VIDEOS, case, filters, run_filter, run_module, train_module

_LEARNED, _LEARNED_BOTH = "gridloom, learned gate", "gridloom, learned gate, offline"
_ESTIMATED = "gridloom, learned gate, noise estimated"
_RULE = "gridloom, kalman gate, nothing learnt"
_KNOWN_CAUSAL = {"carphone": -6.1, "bikes-a": -3.4, "bikes-b": -5.05, "bunny": -5.9}
_KNOWN_OFFLINE = {"carphone": -7.9, "bikes-a": -4.3, "bikes-b": -7.1, "bunny": -7.9}
_BETTER = 0.3
_LEAST_SHARPNESS = 0.92
_LEVEL = 0.15
_CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    ".05": {"level": 0.05},
    ".15": {"level": _LEVEL},
    ".4": {"level": 0.4},
    "noisy flow": {"flow": "noisy"},
    "no flow": {"flow": "none"},
    "smooth": {"kind": "smooth"},
    "offset": {"kind": "offset"},
}
_LEVELS = (".05", ".15", ".4")
_FEW = ("input", "alpha .5", "alpha .8", "alpha .8, masked", "gate .8, bicubic", "kalman, no flow", "kalman, bicubic")
_NO_FLOW = ("input", "no warp, alpha .5", "kalman, no flow", "offline: mean of 3")
_AFTER_CUT = 6
_NO_BIAS = -99.0


def known(*, clip: str, quick: bool) -> dict[str, Any]:
    """The known filters, and the module without training, on one clip in all conditions."""
    found: dict[str, Any] = {}
    for condition, settings in _CONDITIONS.items():
        if quick and condition != ".15":
            continue
        one = case(clip, **settings)
        rows = filters()
        kept = (
            rows if condition == ".15" else _NO_FLOW if condition == "no flow" else (*_FEW, "offline: kalman both ways")
        )
        found[condition] = {name: run_filter(one, rows[name], ahead=name.startswith("offline")) for name in kept}
        found[condition][_RULE] = run_module(one, _rule())
    return found


def learned(*, video: str, quick: bool) -> dict[str, Any]:
    """Train on the other videos, and filter the clips of this one in all conditions."""
    if quick:
        module, seconds = train_module(video, others=("bunny",), settings={"train.steps": 4, "train.validate_every": 4})
    else:
        module, seconds = train_module(video)
    found: dict[str, Any] = {"cpu_seconds": seconds, "clips": {}}
    for clip in VIDEOS[video]:
        conditions: dict[str, Any] = {}
        for condition, settings in _CONDITIONS.items():
            if quick and condition != ".15":
                continue
            one = case(clip, **settings)
            conditions[condition] = {_LEARNED: run_module(one, module)}
            if condition in _LEVELS:
                conditions[condition][_ESTIMATED] = run_module(one, module, known=False)
                conditions[condition][_LEARNED_BOTH] = run_module(one, module, mode="bidirectional")
        found["clips"][clip] = conditions
    if video == "bikes":
        found["cut"] = {_LEARNED: _after_cut(run_module(case("cut"), module))}
    return found


def cut() -> dict[str, Any]:
    """Error of the frames from the cut on."""
    one, rows = case("cut"), filters()
    names = (*_FEW[1:], "alpha .5, masked", "seed, alpha .5")
    return {name: _after_cut(run_filter(one, rows[name])) for name in names} | {
        _RULE: _after_cut(run_module(one, _rule()))
    }


def _after_cut(scores: Mapping[str, Any]) -> list[float]:
    by_frame: list[float] = scores["by_frame"]
    return by_frame[CUT : CUT + _AFTER_CUT]


def _rule() -> Any:
    from gridloom.systems.temporal.module import TemporalModule

    return TemporalModule(3, gate="kalman", interpolation="spline", occlusion="weigh", refiner="none")


def main() -> None:
    """Measure all clips, and print the tables."""
    bench = Bench(__file__, __doc__ or "", sources=("systems/temporal", "evaluate/flicker.py", "nn/warp.py"))
    videos = {"carphone": VIDEOS["carphone"]} if bench.quick else VIDEOS
    names = [clip for clips in videos.values() for clip in clips]
    found = {clip: bench.cell(f"known filters, {clip}", known, clip=clip, quick=bench.quick) for clip in names}
    after = {} if bench.quick else bench.cell("known filters, cut", cut)
    for video in videos:
        trained = bench.cell(f"learned gate, {video} left out", learned, video=video, quick=bench.quick)
        bench.figure(f"training without {video}, CPU s", trained["cpu_seconds"])
        after |= trained.get("cut", {})
        for clip, conditions in trained["clips"].items():
            for condition, rows in conditions.items():
                found[clip][condition] |= rows
    _main_table(bench, found)
    if not bench.quick:
        _conditions_table(bench, found)
        print("A cut that nobody announces (bikes): error of the cut's frame and of those after it, dB")
        header = ("filter", *(f"+{frame}" for frame in range(_AFTER_CUT)))
        bench.table(header, [[name, *row] for name, row in after.items()])
        _goals(bench, found, after)
    bench.finish()


def _main_table(bench: Bench, found: Mapping[str, Any]) -> None:
    """Everything at once, at .15."""
    print("Noise .15: error / bias / temporal variation (dB) / sharpness / |warping error - floor|")
    coverage = ", ".join(f"{clip} {rows['.15']['input']['coverage']:.2f}" for clip, rows in found.items())
    print(f"(share of cells that the warping error looks at: {coverage})")
    rows = []
    for name in next(iter(found.values()))[".15"]:
        scores = [conditions[".15"][name] for conditions in found.values()]
        texts = [_text(one) for one in scores]
        rows.append([name, *texts, _mean([one["error"] for one in scores])])
        bench.figure(name, {clip: one["error"] for clip, one in zip(found, scores, strict=True)})
    bench.table(("filter", *found, "mean error"), rows)


def _text(scores: Mapping[str, Any]) -> str:
    bias = "none" if scores["bias"] < _NO_BIAS else f"{scores['bias']:+.1f}"
    return (
        f"{scores['error']:+.2f} / {bias} / {scores['variation']:+.1f} / {scores['sharpness']:.2f} / "
        f"{scores['distance']:.2f}"
    )


def _conditions_table(bench: Bench, found: Mapping[str, Any]) -> None:
    """Errors in the other conditions."""
    print("Other noise, other flow: error over the variance of the noise, dB")
    rows = []
    for condition in _CONDITIONS:
        for name in found[NAMES[0]][condition]:
            if condition == ".15":
                continue
            errors = [found[clip][condition][name]["error"] for clip in NAMES]
            rows.append([condition, name, *errors, _mean(errors)])
    bench.table(("condition", "filter", *NAMES, "mean"), rows)


def _goals(bench: Bench, found: Mapping[str, Any], after: Mapping[str, Sequence[float]]) -> None:
    """What was to be shown."""

    def errors(name: str, condition: str = ".15") -> dict[str, float]:
        return {clip: found[clip][condition][name]["error"] for clip in NAMES}

    rows: list[list[Any]] = []

    def row(goal: str, reached: str, met: bool) -> None:
        rows.append([goal, reached, bench.goal(goal, met)])

    ours, offline = errors(_LEARNED), errors(_LEARNED_BOTH)
    limit = _mean(list(_KNOWN_CAUSAL.values())) - _BETTER
    mean = _mean(list(ours.values()))
    row(f"learned gate, mean error at most {limit:.2f} dB", f"{mean:.2f}", mean <= limit)
    sharpness = min(found[clip][".15"][_LEARNED]["sharpness"] for clip in NAMES)
    row(f"sharpness at least {_LEAST_SHARPNESS} on each clip", f"{sharpness:.3f}", sharpness >= _LEAST_SHARPNESS)
    row("offline: at least as good as the best known on each clip", _all(offline), _beats(offline, _KNOWN_OFFLINE))
    weak, strong = errors(_LEARNED, ".05"), errors(_LEARNED, ".4")
    blend = errors("alpha .8", ".4")
    row("noise .05: not worse than the input on any clip", _all(weak), max(weak.values()) <= 0)
    row("noise .4: as good as constant .8 on each clip", f"{_all(strong)} ({_all(blend)})", _beats(strong, blend))
    first, third = after[_LEARNED][0], after[_LEARNED][2]
    row("cut: at most +.2 dB, below -2 dB two frames later", f"{first:+.2f}, {third:+.2f}", first <= 0.2 and third < -2)
    bench.table(("goal", "reached", ""), rows)


def _beats(ours: Mapping[str, float], others: Mapping[str, float]) -> bool:
    return all(ours[clip] <= others[clip] for clip in NAMES)


def _all(errors: Mapping[str, float]) -> str:
    return " / ".join(f"{errors[clip]:+.2f}" for clip in NAMES)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
