"""Blocks in pure torch that more than one system uses."""
