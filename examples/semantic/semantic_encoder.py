"""The encoder by itself, under the name that scripts beside this file import it by."""

from gridloom import SemanticEncoder, create_semantic_encoder

__all__ = ["SemanticEncoder", "create_semantic_encoder"]
