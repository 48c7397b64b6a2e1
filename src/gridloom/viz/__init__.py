"""Pictures: arrays in, matplotlib figures out. One style for papers, screens and reports; no global state."""

__all__: list[str] = []
