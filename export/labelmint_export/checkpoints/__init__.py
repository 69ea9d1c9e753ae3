"""Safe reading of checkpoint files that other programs wrote."""

from labelmint_export.checkpoints.archives import read_checkpoint
from labelmint_export.checkpoints.records import Array, ModuleRecord, TflibNetwork

__all__ = ["Array", "ModuleRecord", "TflibNetwork", "read_checkpoint"]
