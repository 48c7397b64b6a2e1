"""System D: latents of a video, warped by the flow, gated and fused, so that flicker goes and detail stays."""
