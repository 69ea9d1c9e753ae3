"""What a reader says of the samples that came: how long they took, and which bits the first ones had."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.processes.memory import peak_rss_bytes
from benchmarks.reporting.files import Document


# Any: arrays of every dtype that a sample has.
def describe_arrived(total_ns: int, first: Iterable[Sequence[npt.NDArray[Any]]]) -> Document:
    """Make the answer of a reader, once the clock stands.

    Args:
        total_ns: From the request to the last sample.
        first: Image, mask and keypoints of the first samples.
    """
    digest = hashlib.sha256()
    for arrays in first:
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return {"total_ns": total_ns, "digest": digest.hexdigest(), "peak_rss_bytes": peak_rss_bytes()}
