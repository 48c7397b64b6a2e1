"""Pictures of the heatmap system, from arrays alone."""
