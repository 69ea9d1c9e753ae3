"""Names, dtypes and shapes of a target's inputs and outputs.

Legend: N images, K keypoints, H and W of the delivered picture, h and w of the labels.
"""

from dataclasses import dataclass

from labelmint.v1 import bundle_pb2


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output."""

    name: str
    dtype: str
    """numpy's name."""
    shape: tuple[int, ...]
    """Of one image, without the batch."""

    def record(self) -> dict[str, object]:
        """As it stands in a target's manifest."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["N", *self.shape]}


def input_specs(manifest: bundle_pb2.Manifest) -> tuple[TensorSpec, ...]:
    """The inputs in the order in which the graph takes them."""
    backbone = manifest.backbone
    specs = [TensorSpec("z", "float32", (backbone.z_dim,)), TensorSpec("truncation_psi", "float32", ())]
    if backbone.c_dim:
        specs.append(TensorSpec("c", "float32", (backbone.c_dim,)))
    return tuple(specs)


def output_specs(manifest: bundle_pb2.Manifest) -> tuple[TensorSpec, ...]:
    """The outputs in the order in which the graph gives them."""
    frame = manifest.frame
    specs = [
        TensorSpec("image", "uint8", (frame.image_height, frame.image_width, 3)),
        TensorSpec("label", "uint8", (frame.label_height, frame.label_width)),
        TensorSpec("uncertainty_map", "float16", (frame.label_height, frame.label_width)),
    ]
    if manifest.keypoints.names:
        specs.append(TensorSpec("keypoints", "float32", (len(manifest.keypoints.names), 4)))
    return (*specs, TensorSpec("finite", "bool", ()))
