"""One self-contained HTML page that shows whether it worked."""

__all__: list[str] = []
