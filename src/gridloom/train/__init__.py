"""The one loop that trains every system: plain torch, under `torchrun` or alone."""
