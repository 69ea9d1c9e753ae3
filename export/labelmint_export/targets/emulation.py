"""Half precision as a device computes it, on a processor that lacks it.

onnxruntime computes float16 in float32 on an x86 CPU and knows no bfloat16 there. torch has kernels for both: they sum
in float32 and round each operation's result to the half type, as tensor cores do. Running the deployed torch module
itself, operation by operation, therefore rounds wherever a device that fuses nothing rounds; one that fuses rounds less
often.
"""

from labelmint_export.targets.deployed import TargetModel
from labelmint_export.targets.protocol import Engine
from labelmint_export.targets.torch_engine import run_with_arrays


def emulate(model: TargetModel) -> Engine:
    """Run a model operation by operation on the CPU, rounding every result to its dtype."""
    computes = "torch, cpu, each operation in float32"
    if model.precision != "float32":
        computes = f"torch, cpu, each operation rounded to {model.precision}"
    return Engine(run=run_with_arrays(model.module, model, "cpu"), computes=computes, rounds=True)
