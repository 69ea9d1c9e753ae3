"""The samples of a contact sheet, at even steps through a data set."""

from collections.abc import Callable, Sequence

from labelmint_client._sample import Sample

_SHEET_SAMPLES = 16


class SheetSamples:
    """Keeps the samples that a contact sheet shows, as far as they can be told while a data set is written.

    Args:
        first: Number of the first sample that comes.
        total: Samples of the whole data set; None if unknown.
    """

    def __init__(self, first: int, total: int | None) -> None:
        self._number = first
        self._wanted = _even_steps(total or 0)
        self._kept: dict[int, Sample] = {}

    def offer(self, sample: Sample) -> None:
        """Keep a sample if it is one of those.

        Args:
            sample: The next sample.
        """
        if self._number in self._wanted:
            self._kept[sample.index] = sample
        self._number += 1

    def choose(self, indices: Sequence[int], ask: Callable[[int], Sample]) -> list[Sample]:
        """Take the samples of the finished data set.

        Args:
            indices: Addresses of all its samples.
            ask: Gets a sample that was not kept: of an earlier run, or of a set whose size was unknown.

        Returns:
            Sixteen of them, or all if there are fewer.
        """
        chosen = [indices[number] for number in sorted(_even_steps(len(indices)))]
        return [self._kept[index] if index in self._kept else ask(index) for index in chosen]


def _even_steps(total: int) -> set[int]:
    return {step * total // _SHEET_SAMPLES for step in range(_SHEET_SAMPLES)} if total else set()
