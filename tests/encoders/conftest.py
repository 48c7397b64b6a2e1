"""One tiny run and its data, shared between folders."""

from tests.workflows.tiny import shared_folder, tiny_data, tiny_run

__all__ = ["shared_folder", "tiny_data", "tiny_run"]
