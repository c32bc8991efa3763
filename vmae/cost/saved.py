"""Memory that autograd keeps for the backward pass, counted while it is kept."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


class Saved:
    """Bytes of saved tensors: those alive `now`, and the most at any time (`peak`).

    Tensors that share a storage count once.
    """

    def __init__(self, own: Iterable[torch.Tensor]) -> None:
        self.now = self.peak = 0
        self._own = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._users: Counter[int] = Counter()

    def pack(self, tensor: torch.Tensor) -> _Kept:
        """What autograd keeps in place of a tensor that it saves; counts it."""
        # An output that is saved as it is would hold its graph, which holds it: neither is ever freed.
        kept, storage = _Kept(tensor.detach()), tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._own:
            if not self._users[place]:
                self.now += size
                self.peak = max(self.peak, self.now)
            self._users[place] += 1
            weakref.finalize(kept, self._freed, place, size)
        return kept

    def _freed(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            self.now -= size


class _Kept:
    """A saved tensor; unlike a tensor's, its end is always noticed."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


@contextmanager
def saved_tensors(own: Iterable[torch.Tensor] = ()) -> Iterator[Saved]:
    """Count the bytes that forward passes inside save for their backward passes.

    own   tensors that do not count, such as the parameters

    What a checkpointed block computes again in the backward pass is not seen.

    >>> x = torch.ones(1000, requires_grad=True)
    >>> with saved_tensors() as saved:
    ...     y = x.exp()
    >>> del y
    >>> saved.peak, saved.now
    (4000, 0)
    """
    saved = Saved(own)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda kept: kept.tensor):
        yield saved
