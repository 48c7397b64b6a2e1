"""Fine-tuning on few labels, beside the linear probe of the same encoder and simple models on pixels.

An encoder is trained on digits without labels (preset `digits-contrast`, split by writer), then tuned with a head on a
tenth of the labels (three draws) and on all of them: everything frozen, the early layers frozen, nothing frozen.
Accuracy on the test part, with 90 % intervals. No goal: it says what to expect.
`--quick` trains a few steps, to see that it runs: its figures mean nothing.
"""

import tempfile
from pathlib import Path
from typing import Any

from common import Bench

STEPS_QUICK = 20
WAYS: dict[str, list[str]] = {"all": ["all"], "stem, layer1, layer2": ["stem", "layer1", "layer2"], "nothing": []}


def measure(share: float, seeds: list[int], quick: bool) -> dict[str, Any]:
    """Accuracy by method and frozen part, one for each seed."""
    import gridloom

    plain: dict[str, Any] = {"train.tensorboard": False}
    if quick:
        plain |= {"train.steps": STEPS_QUICK, "train.validate_every": 0}
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder) / "backbone"
        config = gridloom.configure("semantic", preset="digits-contrast", settings=plain)
        gridloom.train_system("semantic", config, output=backbone, show=False, report=False)
        for seed in seeds:
            for frozen, names in WAYS.items():
                settings = {
                    **plain,
                    "backbone": str(backbone),
                    "freeze": names,
                    "seed": seed,
                    "data.label_share": share,
                }
                config = gridloom.configure("finetune", preset="digits", settings=settings)
                run = Path(folder) / f"{seed} {frozen}"
                scores = gridloom.train_system("finetune", config, output=run, show=False, report=False).scores
                for score in scores:
                    if score.metric == "accuracy" and score.group == "all":
                        tuned = score.method == "finetune"
                        name = f"tuned, frozen: {frozen}" if tuned else score.method
                        if tuned or frozen == "all":
                            found.setdefault(name, []).append([score.value, score.low, score.high])
    return {"accuracy": found}


def main() -> None:
    bench = Bench(__file__, __doc__)
    for share in (0.1, 1.0):
        seeds = [0] if bench.quick or share == 1.0 else [0, 1, 2]
        cell = bench.cell(f"{share:.0%} of the labels", measure, share=share, seeds=seeds, quick=bench.quick)
        rows = [
            [method, *(f"{value:.1f} ({low:.1f} to {high:.1f})" for value, low, high in values)]
            for method, values in cell["accuracy"].items()
        ]
        print(f"{share:.0%} of the labels:")
        bench.table(["method", *(f"draw {seed} [%]" for seed in seeds)], rows)
        bench.figure(f"{share:.0%}", {method: values[0][0] for method, values in cell["accuracy"].items()})
    bench.finish()


if __name__ == "__main__":
    main()
