"""Samples of a metric whose values are fixed, and whose objects are made when they are rendered.

A thousand samples take a millisecond or more to make. Made in slices, they hold up the event loop less, and all of
them still show one instant.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from prometheus_client.samples import Sample

Value = TypeVar("Value")


class LaterSamples(Sequence[Sample], Generic[Value]):
    """One sample for each of `values`, which must not change any more. Each look makes its samples anew."""

    def __init__(self, values: Sequence[Value], make: Callable[[Value], Sample]) -> None:
        self._values = values
        self._make = make

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, at: int) -> Sample: ...

    @overload
    def __getitem__(self, at: slice) -> list[Sample]: ...

    def __getitem__(self, at: int | slice) -> Sample | list[Sample]:
        if isinstance(at, slice):
            return list(map(self._make, self._values[at]))
        return self._make(self._values[at])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._make, self._values)
