"""Measuring: scores with intervals, tables, probes, neighbors, and the baselines that a model must beat."""

__all__: list[str] = []
