"""System D: latents of a video, warped by the flow, gated and fused, so that flicker goes and detail stays.

From a command to its loss: `config`, `data` (clips, and the question of the evaluation), `objective`; the model is in
`module`, what goes along with a stream in `stream`.
"""

from gridloom.systems.temporal.edges import edge_loss
from gridloom.systems.temporal.flow import check_flow_direction, invert_flow
from gridloom.systems.temporal.module import TemporalModule
from gridloom.systems.temporal.multiscale import MultiscaleTemporal
from gridloom.systems.temporal.stream import Clip, TemporalStream, stabilize_clip
from gridloom.systems.temporal.system import SYSTEM

__all__ = [
    "SYSTEM",
    "Clip",
    "MultiscaleTemporal",
    "TemporalModule",
    "TemporalStream",
    "check_flow_direction",
    "edge_loss",
    "invert_flow",
    "stabilize_clip",
]
