"""extract: a checkpoint to a standalone encoder."""

from gridloom.encoders.extract import Extraction, extract_encoder

__all__ = ["Extraction", "extract"]

extract = extract_encoder
