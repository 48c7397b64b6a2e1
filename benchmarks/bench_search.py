"""Search over embeddings: exact, beside faiss on the same rows.

How: 100,000 embeddings of 768 numbers in which 64 directions vary, in 1,000 clusters, 256 queries, the 10 nearest by
cosine, one thread. Each pair of searches runs by turns in one process; CPU time, the median of the pairs' ratios.
Found is compared with float64. Hard cases, once each: every row a hundred times over, and rows that all point almost
the same way, where float32 cannot decide and float64 searches again; then finding duplicates, and outliers.
Goal: the exact search is no slower than faiss's flat index, and finds what float64 finds.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import Bench, median, paired

SOURCES = ("evaluate/exact.py", "encoders/approximate.py", "encoders/index.py", "encoders/places.py")
FEATURES, QUERIES, K = 768, 256, 10


def _embeddings(rows: int, *, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Clustered rows and queries; with a small spread they all point almost the same way."""
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(64, FEATURES)).astype(np.float32)
    centers = generator.normal(size=(1000, 64)).astype(np.float32)
    chosen = centers[generator.integers(0, 1000, rows + QUERIES)]
    values = (chosen + 0.5 * generator.normal(size=chosen.shape).astype(np.float32)) @ directions
    values = values * spread + (1 - spread) * directions.sum(axis=0)
    return values[QUERIES:], values[:QUERIES]


def _milliseconds(function: Callable[[], Any], per: int) -> Callable[[], float]:
    def measure() -> float:
        started = time.process_time()
        function()
        return (time.process_time() - started) * 1e3 / per

    return measure


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
    try:
        import faiss
    except ImportError:
        return
    faiss.omp_set_num_threads(1)


def beside(*, backend: str, rows: int, queries: int, repetitions: int) -> dict[str, Any]:
    """CPU milliseconds per query of the exact search and another, and the share of true neighbors the other finds."""
    from gridloom.encoders.index import EmbeddingIndex

    _one_thread()
    values, wanted = _embeddings(rows)
    wanted = wanted[:queries]
    exact = EmbeddingIndex(values)
    started = time.process_time()
    other = EmbeddingIndex(values, backend=backend)
    build = time.process_time() - started
    searches = [lambda: exact._search.top(wanted, K), _raw_faiss(values, wanted) if backend == "faiss-flat" else None]
    searches[1] = searches[1] or (lambda: other._search.top(wanted, K))
    found = [search()[0] for search in searches]
    ours, theirs = paired(*(_milliseconds(search, queries) for search in searches), repetitions=repetitions)
    return {
        "exact": median(ours),
        "other": median(theirs),
        "ratio": median([b / a for a, b in zip(ours, theirs, strict=True)]),
        "recall": float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(*found, strict=True)])),
        "build_seconds": build,
    }


def _raw_faiss(values: np.ndarray, wanted: np.ndarray) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """The flat index of faiss by itself, on unit vectors made beforehand."""
    import faiss

    rows, queries = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (values, wanted))
    index = faiss.IndexFlatIP(FEATURES)
    index.add(rows)

    def search() -> tuple[np.ndarray, np.ndarray]:
        similarity, found = index.search(queries, K)
        return found, similarity

    return search


def true(*, rows: int, queries: int) -> dict[str, Any]:
    """Share of the neighbors that a product in float64 finds, and the greatest difference of a similarity."""
    from gridloom.encoders.index import EmbeddingIndex

    values, wanted = _embeddings(rows)
    wanted = wanted[:queries]
    index, similarity = EmbeddingIndex(values)._search.top(wanted, K)
    unit = [
        a / np.linalg.norm(a, axis=1, keepdims=True) for a in (values.astype(np.float64), wanted.astype(np.float64))
    ]
    between = unit[1] @ unit[0].T
    best = np.argsort(-between, axis=1)[:, :K]
    return {
        "recall": float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(index, best, strict=True)])),
        "difference": float(np.abs(similarity - np.take_along_axis(between, best, axis=1)).max()),
    }


def hard(*, case: str, rows: int, queries: int) -> dict[str, Any]:
    """CPU milliseconds per query where float32 cannot decide."""
    from gridloom.encoders.index import EmbeddingIndex

    _one_thread()
    values, wanted = _embeddings(rows, spread=1e-3 if case == "almost one direction" else 1.0)
    if case == "a hundred copies of each":
        values = values[: rows // 100].repeat(100, axis=0)
    search = EmbeddingIndex(values)._search
    measure = _milliseconds(lambda: search.top(wanted[:queries], K), queries)
    measure()
    return {"exact": measure()}


def whole(*, question: str, rows: int) -> dict[str, Any]:
    """CPU seconds of a question that every row is asked."""
    from gridloom.encoders.index import EmbeddingIndex

    _one_thread()
    index = EmbeddingIndex(_embeddings(rows)[0])
    started = time.process_time()
    found = index.duplicates(0.9) if question == "duplicates" else index.outliers(10)
    return {"seconds": time.process_time() - started, "found": int(found["found_row_number"].size)}


def main() -> None:
    bench = Bench(__file__, __doc__, sources=SOURCES)
    rows, queries, repetitions = (20_000, 64, 3) if bench.quick else (100_000, QUERIES, 7)
    lines = []
    for backend in ("faiss-flat", "faiss-ivf"):
        cell = bench.cell(backend, beside, backend=backend, rows=rows, queries=queries, repetitions=repetitions)
        goal = bench.goal(f"no slower than {backend}", cell["ratio"] >= 1) if backend == "faiss-flat" else ""
        lines.append(
            [backend, cell["exact"], cell["other"], cell["ratio"], cell["recall"], cell["build_seconds"], goal]
        )
        bench.figure(backend, cell)
    header = ["beside", "exact ms/query", "its ms/query", "its / exact", "neighbors it finds", "its build s", "goal"]
    bench.table(header, lines)
    cell = bench.cell("float64", true, rows=rows, queries=queries)
    same = bench.goal("finds what float64 finds", cell["recall"] == 1 and cell["difference"] < 1e-12)
    bench.table(["exact, beside float64", "difference", "goal"], [[cell["recall"], cell["difference"], same]])
    cases = ("almost one direction", "a hundred copies of each")
    kept = {case: bench.cell(case, hard, case=case, rows=rows, queries=queries) for case in cases}
    bench.table(["float32 cannot decide", "exact ms/query"], [[case, found["exact"]] for case, found in kept.items()])
    all_rows = rows // 4 if bench.quick else rows // 2
    asked = {name: bench.cell(name, whole, question=name, rows=all_rows) for name in ("duplicates", "outliers")}
    bench.table(
        [f"of {all_rows:,} rows", "CPU s", "found"],
        [[name, cell["seconds"], cell["found"]] for name, cell in asked.items()],
    )
    bench.figure("true", cell)
    bench.figure("hard", kept)
    bench.figure("whole", asked)
    bench.finish()


if __name__ == "__main__":
    main()
