"""Latents that the caller brings become the messages of `Label`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from labelmint.arrays import tensor_from_array
from labelmint.v1 import service_pb2
from labelmint_client._checks import UINT32_MAX, integer, number, text
from labelmint_client._cursor import StreamCursor
from labelmint_client._errors import InvalidArgumentError

LatentSpace = Literal["z", "w", "w_plus"]

_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelJob:
    """What `Client.label` was asked for.

    Attributes:
        options: Options of the stream.
        space: Which latents they are.
        latents: float32 [N, z_dim], [N, w_dim] or [N, num_ws, w_dim].
        class_indices: One a latent, or empty.
    """

    options: service_pb2.LabelOptions
    space: LatentSpace
    latents: npt.NDArray[np.float32]
    class_indices: tuple[int, ...]

    def messages(self, cursor: StreamCursor) -> Iterator[service_pb2.LabelRequest]:
        """Cut the latents that are still due into messages of about a megabyte.

        Args:
            cursor: Where the stream stands; pins the bundle and the engine of what already came.
        """
        options = service_pb2.LabelOptions()
        options.CopyFrom(self.options)
        options.digest = cursor.digest
        if cursor.pin_numerics:
            options.numerics_id = cursor.numerics_id
        start = cursor.next_index
        rows = max(1, _MESSAGE_BYTES // self.latents[0].nbytes)
        return self._messages(options, start, rows)

    def _messages(self, options: service_pb2.LabelOptions, start: int, rows: int) -> Iterator[service_pb2.LabelRequest]:
        for first in range(start, len(self.latents), rows):
            message = service_pb2.LabelRequest(class_indices=self.class_indices[first : first + rows])
            if first == start:
                message.options.CopyFrom(options)
            tensor = tensor_from_array(self.latents[first : first + rows])
            match self.space:
                case "z":
                    message.z.CopyFrom(tensor)
                case "w":
                    message.w.CopyFrom(tensor)
                case "w_plus":
                    message.w_plus.CopyFrom(tensor)
            yield message


def label_job(
    *,
    model: str,
    z: npt.ArrayLike | None,
    w: npt.ArrayLike | None,
    w_plus: npt.ArrayLike | None,
    class_indices: Iterable[int] | None,
    truncation_psi: float | None,
    digest: str | None,
    numerics_id: str | None,
    output: service_pb2.OutputOptions,
) -> LabelJob:
    """Check the arguments of `Client.label`, which these are.

    Raises:
        InvalidArgumentError: An argument is of the wrong type or shape, cannot be sent, or contradicts another.
    """
    options = service_pb2.LabelOptions(
        model=text("model", model),
        digest=text("digest", digest or ""),
        numerics_id=text("numerics_id", numerics_id or ""),
        output=output,
    )
    if truncation_psi is not None:
        options.truncation_psi = number("truncation_psi", truncation_psi)
    space, latents = _latents(z, w, w_plus)
    # An array has no truth value: only None is none.
    given = () if class_indices is None else class_indices
    classes = tuple(integer("class_indices", index, 0, UINT32_MAX) for index in given)
    if class_indices is not None and len(classes) != len(latents):
        raise InvalidArgumentError(
            f"class_indices has {len(classes)} entries, expected one for each of the {len(latents)} latents",
            field="class_indices",
        )
    return LabelJob(options=options, space=space, latents=latents, class_indices=classes)


def _latents(
    z: npt.ArrayLike | None, w: npt.ArrayLike | None, w_plus: npt.ArrayLike | None
) -> tuple[LatentSpace, npt.NDArray[np.float32]]:
    spaces: tuple[LatentSpace, ...] = get_args(LatentSpace)
    given = [(space, array) for space, array in zip(spaces, (z, w, w_plus), strict=True) if array is not None]
    if len(given) != 1:
        got = " and ".join(space for space, _ in given) or "none"
        raise InvalidArgumentError(f"got {got} of z, w and w_plus; give exactly one", field="latents")
    [(space, values)] = given
    try:
        # A copy: what the caller does to the array later must not reach requests that are still to be sent.
        latents = np.array(values, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"{space} is no array of numbers: {error}", field=space) from error
    num_axes, axes = (3, "[N, num_ws, w_dim]") if space == "w_plus" else (2, f"[N, {space}_dim]")
    if latents.ndim != num_axes or latents.size == 0:
        raise InvalidArgumentError(f"{space} has shape {latents.shape}, expected {axes} without a zero", field=space)
    return space, latents
