"""Gridded data: read it, cut it, split it, normalize it, batch it. `xarray.Dataset` is the grid, NaN a missing cell."""
