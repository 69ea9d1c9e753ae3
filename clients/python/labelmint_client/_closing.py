"""What is closed at the end of a `with`."""

import abc
from types import TracebackType
from typing import Self


class Closing(abc.ABC):
    """Is closed at the end of a `with`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
