"""How good forecasts are."""
from gridloom.evaluate.compare import compare


def score(task, predictions, seed):
    return compare(task, {k: v[["frames"]] for k, v in predictions.items()}, seed, by="lead")
