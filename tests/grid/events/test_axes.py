"""Axes: known answers, the plain formula in a loop, edges."""

import math

import numpy as np

from gridloom.grid.events.axes import LinearAxis, PriceAxis, VolumeAxis


def test_known_answers_of_prices():
    axis = PriceAxis()
    assert axis.column(np.array([10.0, 11.0, 9.0, 10 / 1.1, 10.5]), 10.0).tolist()[:4] == [15, 31, 0, 0]


def test_known_answers_of_volumes():
    assert VolumeAxis().row(np.array([0, 50000, 60000])).tolist() == [0, 31, 31]
    assert VolumeAxis().row(np.array([0.0, 50000.0, 60000.0])).tolist() == [0, 31, 31]
