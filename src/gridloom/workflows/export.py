"""export: an encoder to one file that other programs run."""

from gridloom.encoders.export import Export, export_encoder

__all__ = ["Export", "export"]

export = export_encoder
