"""The progress bar of a data set."""

import contextlib
import functools
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from labelmint_client import _optional
from labelmint_client._sync_stream import SampleStream

if TYPE_CHECKING:
    import tqdm


class ProgressBar:
    """Shows how far a stream is, from its first message on; a context manager that ends the bar.

    Args:
        stream: What it shows.
        description: Text before it.
        total: Samples of the whole data set; None if unknown.
        initial: Samples that are there already.
        is_shown: Whether it shows anything.

    Raises:
        MissingDependencyError: A package is missing that the data set needs.
    """

    def __init__(
        self, stream: SampleStream, *, description: str, total: int | None, initial: int, is_shown: bool
    ) -> None:
        # Loaded before anything is created, should one be missing; the writer makes its pictures with Pillow.
        tqdm, _ = _optional.tqdm, _optional.Image
        self._stream = stream
        self._open = functools.partial(
            tqdm.tqdm,
            desc=description,
            total=total,
            initial=initial,
            unit=" samples",
            disable=not is_shown,
            dynamic_ncols=True,
        )
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def count(self) -> None:
        """Add a sample."""
        if self._stream.num_rejected:
            self._bar.set_postfix(rejected=self._stream.num_rejected, refresh=False)
        self._bar.update()

    def show_rejected(self) -> None:
        """Show what the filter rejected while no sample comes."""
        self._bar.set_postfix(rejected=self._stream.num_rejected)

    @functools.cached_property
    def _bar(self) -> "tqdm.tqdm[NoReturn]":
        return self._stack.enter_context(self._open())
