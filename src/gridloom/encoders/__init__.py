"""Trained models as files that carry all they need, and encoders out of them."""
