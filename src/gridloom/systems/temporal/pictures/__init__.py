"""Pictures of the temporal system: arrays in, figures out."""
