"""Fine-tuning: a pretrained encoder of any system as the backbone of a model that says a label."""

from gridloom.finetune.config import PRESETS, FinetuneConfig, LabeledGridConfig
from gridloom.finetune.objective import FineTuning
from gridloom.finetune.system import SYSTEM

__all__ = ["PRESETS", "SYSTEM", "FineTuning", "FinetuneConfig", "LabeledGridConfig"]
