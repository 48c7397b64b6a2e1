"""One slice per system: what differs between them, and nothing else."""
