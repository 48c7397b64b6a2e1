"""Contracts that every layer above shares. Pure torch and numpy: no xarray, no plotting, no command line."""
