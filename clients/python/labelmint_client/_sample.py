"""One labelled sample.

Shape legend: H, W image size in pixels; h, w label size in pixels; K keypoints; Z z_dim.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from labelmint_client._errors import FieldNotRequestedError

UInt8Array = npt.NDArray[np.uint8]
Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]

_ArrayT = TypeVar("_ArrayT", UInt8Array, Float16Array, Float32Array)


class Sample:
    """An image with its labels. Immutable.

    Arrays that came RAW are read-only views. The largest, mostly the image, keeps its whole message (4 MiB unless asked
    otherwise) in memory: copy the images of samples that are kept for long.

    Attributes:
        index: Address of the sample within its seed; for `label` the row of the latents it was made from.
        class_index: Class of a conditional model, else None.
        uncertainty: The image score, nats: mean of the top tenth of the uncertainty map.
    """

    __slots__ = ("_image", "_keypoints", "_mask", "_uncertainty_map", "_z", "class_index", "index", "uncertainty")

    index: int
    class_index: int | None
    uncertainty: float
    _image: UInt8Array | None
    _mask: UInt8Array | None
    _keypoints: Float32Array | None
    _uncertainty_map: Float16Array | None
    _z: Float32Array | None

    def __init__(
        self,
        *,
        index: int,
        uncertainty: float,
        class_index: int | None = None,
        image: UInt8Array | None = None,
        mask: UInt8Array | None = None,
        keypoints: Float32Array | None = None,
        uncertainty_map: Float16Array | None = None,
        z: Float32Array | None = None,
    ) -> None:
        assign = object.__setattr__
        assign(self, "index", index)
        assign(self, "uncertainty", uncertainty)
        assign(self, "class_index", class_index)
        assign(self, "_image", image)
        assign(self, "_mask", mask)
        assign(self, "_keypoints", keypoints)
        assign(self, "_uncertainty_map", uncertainty_map)
        assign(self, "_z", z)

    @property
    def image(self) -> UInt8Array:
        """sRGB, uint8 [H, W, 3]."""
        return self._present("image", self._image)

    @property
    def mask(self) -> UInt8Array:
        """Class ids, uint8 [h, w]."""
        return self._present("mask", self._mask)

    @property
    def keypoints(self) -> Float32Array:
        """x, y (image pixels, pixel centres at +0.5), score, visibility (0 or 1); float32 [K, 4]."""
        return self._present("keypoints", self._keypoints)

    @property
    def uncertainty_map(self) -> Float16Array:
        """Jensen-Shannon divergence of the members, nats; float16 [h, w]."""
        return self._present("uncertainty_map", self._uncertainty_map)

    @property
    def z(self) -> Float32Array:
        """The latent, float32 [Z]."""
        return self._present("z", self._z)

    def has(self, field: str) -> bool:
        """Tell whether an array came with this sample.

        Args:
            field: "image", "mask", "keypoints", "uncertainty_map" or "z".
        """
        return getattr(self, f"_{field}", None) is not None

    def _present(self, field: str, array: _ArrayT | None) -> _ArrayT:
        if array is None:
            raise FieldNotRequestedError(
                f"sample {self.index} came without {field}; add {field!r} to fields=... of the request "
                "(keypoints exist only where the model has them)",
                field=field,
            )
        return array

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a sample is immutable, {name} cannot be set; copy the array you want to change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a sample is immutable, {name} cannot be deleted")

    def __getstate__(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        arrays = ", ".join(
            f"{field}={array.dtype}{list(array.shape)}"
            for field in ("image", "mask", "keypoints", "uncertainty_map", "z")
            if (array := getattr(self, f"_{field}")) is not None
        )
        return f"Sample(index={self.index}, uncertainty={self.uncertainty:.6g}, {arrays})"
