"""A ToonHead picture set: sample i of (seed, split, resolution), alone or many in parallel processes."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from labelmint_export.datasets.toonhead.avatar import AvatarDescription, draw_description, render_svg
from labelmint_export.datasets.toonhead.classes import KEYPOINT_NAMES
from labelmint_export.datasets.toonhead.keypoints import locate_keypoints
from labelmint_export.datasets.toonhead.masks import render_mask
from labelmint_export.datasets.toonhead.rasterizing import rasterize
from labelmint_export.datasets.toonhead.splits import Split
from labelmint_export.errors import DatasetError
from labelmint_export.orphans import end_with_parent

MIN_RESOLUTION = 8
MAX_RESOLUTION = 4096

_CHUNK_SIZE = 32
_UINT64_END = 2**64

_Rendered = TypeVar("_Rendered")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ToonHeadSample:
    """One picture with its true labels."""

    image: npt.NDArray[np.uint8]
    """uint8 [H, W, 3], sRGB."""
    mask: npt.NDArray[np.uint8]
    """uint8 [H, W], values in [0, len(CLASS_NAMES))."""
    keypoints: npt.NDArray[np.float32]
    """float32 [K, 3], (x, y, visible): pixels with pixel centres at +0.5, visible 0 or 1."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ToonHeadSet:
    """A picture set without end: every index from 0 to 2**64 - 1 has its picture.

    A sample is a pure function of (seed, split, pose range, index); the resolution only decides on how many pixels it
    is drawn. The methods with `num_processes` start their processes with "spawn": a script that calls them with more
    than one needs the usual `if __name__ == "__main__":`.
    """

    resolution: int
    """Side of the square pictures in pixels."""
    seed: int = 0
    """Another seed gives other avatars at the same indices."""
    split: Split = Split.TRAIN
    """Which combinations of component variants may occur."""
    pose_range: float = 1.0
    """Share of the full ranges of rotation, scale and shifts, 0 to 1: portraits are more alike the smaller it is."""

    def __post_init__(self) -> None:
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION:
            raise DatasetError(
                f"resolution is {self.resolution}, expected {MIN_RESOLUTION} to {MAX_RESOLUTION} pixels; "
                "choose the resolution of the generator",
                field="resolution",
            )
        if not 0 <= self.seed < _UINT64_END:
            raise DatasetError(
                f"seed is {self.seed}, expected 0 to 2**64 - 1; choose a seed in that range", field="seed"
            )
        if not 0 <= self.pose_range <= 1:
            raise DatasetError(
                f"pose_range is {self.pose_range}, expected 0 to 1; 1 is the full range", field="pose_range"
            )

    def describe(self, index: int) -> AvatarDescription:
        """Say which avatar a sample shows, without drawing it.

        Raises:
            DatasetError: the index is not in [0, 2**64).
        """
        if not 0 <= index < _UINT64_END:
            raise DatasetError(
                f"index is {index}, expected 0 to 2**64 - 1; choose an index in that range", field="index"
            )
        return draw_description(self.seed, self.split, index, self.pose_range)

    def render_image(self, index: int) -> npt.NDArray[np.uint8]:
        """Draw one picture without labels.

        Returns:
            uint8 [H, W, 3], sRGB.
        """
        return rasterize(render_svg(self.describe(index)), self.resolution)

    def render(self, index: int) -> ToonHeadSample:
        """Draw one picture with its labels.

        Returns:
            The sample; its image is that of `render_image`.
        """
        description = self.describe(index)
        svg = render_svg(description)
        return ToonHeadSample(
            image=rasterize(svg, self.resolution),
            mask=render_mask(svg, self.resolution),
            keypoints=locate_keypoints(description, self.resolution),
        )

    def draw(
        self, indices: Sequence[int], *, num_processes: int = 1, show_progress: bool | None = None
    ) -> Iterator[npt.NDArray[np.uint8]]:
        """Draw many pictures without labels, one after another; the arguments are those of `render_images`.

        Yields:
            uint8 [H, W, 3], sRGB.

        Raises:
            DatasetError: a picture cannot be drawn, or a process died.
        """
        return _map(self.render_image, indices, num_processes, show_progress)

    def render_images(
        self, indices: Sequence[int], *, num_processes: int = 1, show_progress: bool | None = None
    ) -> npt.NDArray[np.uint8]:
        """Draw many pictures without labels.

        Args:
            indices: which samples, in the order of the result.
            num_processes: 1 draws in this process.
            show_progress: a bar on stderr; None shows it on a terminal only.

        Returns:
            uint8 [N, H, W, 3], sRGB.

        Raises:
            DatasetError: a picture cannot be drawn, or a process died.
        """
        images = np.empty((len(indices), self.resolution, self.resolution, 3), dtype=np.uint8)
        for i, image in enumerate(self.draw(indices, num_processes=num_processes, show_progress=show_progress)):
            images[i] = image
        return images

    def render_labelled(
        self, indices: Sequence[int], *, num_processes: int = 1, show_progress: bool | None = None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """Draw many pictures with their labels; the arguments are those of `render_images`.

        Returns:
            Images uint8 [N, H, W, 3], masks uint8 [N, H, W], keypoints float32 [N, K, 3], as in `ToonHeadSample`.

        Raises:
            DatasetError: a picture cannot be drawn, or a process died.
        """
        side = self.resolution
        images = np.empty((len(indices), side, side, 3), dtype=np.uint8)
        masks = np.empty((len(indices), side, side), dtype=np.uint8)
        keypoints = np.empty((len(indices), len(KEYPOINT_NAMES), 3), dtype=np.float32)
        for i, sample in enumerate(_map(self.render, indices, num_processes, show_progress)):
            images[i], masks[i], keypoints[i] = sample.image, sample.mask, sample.keypoints
        return images, masks, keypoints


def _map(
    render: Callable[[int], _Rendered],
    indices: Sequence[int],
    num_processes: int,
    show_progress: bool | None,
) -> Iterator[_Rendered]:
    """Render every index, in order."""
    if num_processes < 1:
        raise DatasetError(f"num_processes is {num_processes}, expected at least 1; give the number of free cores")
    plain_indices = [int(index) for index in indices]
    hidden = None if show_progress is None else not show_progress
    with tqdm(total=len(plain_indices), disable=hidden, unit="picture", desc="toonhead") as bar:
        chunks = (
            _chunks_here(render, plain_indices)
            if num_processes == 1 or len(plain_indices) <= _CHUNK_SIZE
            else _chunks_in_processes(render, plain_indices, num_processes)
        )
        for chunk in chunks:
            yield from chunk
            bar.update(len(chunk))


def _chunks_here(render: Callable[[int], _Rendered], indices: list[int]) -> Iterator[list[_Rendered]]:
    for index in indices:
        yield [render(index)]


def _chunks_in_processes(
    render: Callable[[int], _Rendered], indices: list[int], num_processes: int
) -> Iterator[list[_Rendered]]:
    chunks = [indices[start : start + _CHUNK_SIZE] for start in range(0, len(indices), _CHUNK_SIZE)]
    pool = concurrent.futures.ProcessPoolExecutor(
        num_processes, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
    )
    try:
        with _holding_interrupts_back():
            outcomes = pool.map(functools.partial(_render_chunk, render), chunks)
        for outcome in outcomes:
            if isinstance(outcome, str):
                raise DatasetError(outcome)
            yield outcome
    except concurrent.futures.BrokenExecutor as error:
        raise DatasetError(
            f"a rendering process died ({error}); call from a script that has "
            'if __name__ == "__main__":, see that memory suffices, or use num_processes=1'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _holding_interrupts_back() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: it goes to all of them at once, and this one ends the others."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _render_chunk(render: Callable[[int], _Rendered], indices: list[int]) -> list[_Rendered] | str:
    """Render in a worker; failures return as text, because an exception that cannot be pickled hangs the parent."""
    rendered = []
    for index in indices:
        try:
            rendered.append(render(index))
        except Exception as error:  # noqa: BLE001 - every failure has to reach the parent, whatever its type
            return f"sample {index} failed in a rendering process: {type(error).__name__}: {error}"
    return rendered
