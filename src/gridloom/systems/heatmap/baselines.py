"""Dumb forecasts that a model must beat."""
BASELINES: dict = {}
