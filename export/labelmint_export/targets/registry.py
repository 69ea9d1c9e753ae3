"""Every target, by name."""

from labelmint_export.errors import BuildError
from labelmint_export.precision import Precision
from labelmint_export.targets import aot_inductor, exported_program, onnx_target, tensorrt_plans, torchscript, triton
from labelmint_export.targets.protocol import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        onnx_target.TARGET,
        torchscript.TARGET,
        exported_program.TARGET,
        aot_inductor.TARGET,
        tensorrt_plans.TENSORRT_RTX,
        tensorrt_plans.TENSORRT,
        triton.TARGET,
    )
}


def find_target(name: str, precision: Precision) -> Target:
    """Look a target up.

    Raises:
        BuildError: There is none of that name, or it does not come in that precision.
    """
    target = TARGETS.get(name)
    if target is None:
        raise BuildError(f"target is {name!r}, expected one of {list(TARGETS)}", field="target")
    if precision not in target.precisions:
        raise BuildError(
            f"precision of target {name} is {precision}, expected one of {list(target.precisions)}", field="precision"
        )
    return target
