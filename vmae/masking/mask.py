"""`Mask`, its error, and the sampling that all schemes share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vmae.grid import TokenGrid


@dataclass(frozen=True)
class Mask:
    """Three index tensors, one row per clip.

    visible  (B, V)  tokens the encoder sees, ascending; `ids_keep` in MAE's code
    queries  (B, Q)  positions that get a mask token in the decoder, ascending
    targets  (B, M)  indices into `queries`, ascending: the positions whose loss counts
    """

    visible: torch.Tensor
    queries: torch.Tensor
    targets: torch.Tensor

    @property
    def target_tokens(self) -> torch.Tensor:
        """(B, M): token indices of the targets."""
        return self.queries.gather(1, self.targets)

    def hidden(self, tokens: int) -> torch.Tensor:
        """(B, N) bool, True for tokens that the encoder does not see: for figures and tests."""
        return hidden_tokens(self.visible, tokens)


class MaskError(ValueError):
    """A mask that does not fit the grid; the message names the value, the limit and a fix."""


def count_kept(total: int, ratio: float, what: str, round_visible: bool = False) -> int:
    """How many of `total` stay visible: VideoMAE's code hides int(ratio·total).

    round_visible   MAE's rule: int((1 - ratio)·total) stay visible

    Raises MaskError if that is all of them or none.
    """
    hidden = total - int(total * (1 - ratio)) if round_visible else int(ratio * total)
    if hidden >= total or hidden < 1:
        problem = "nothing to predict" if hidden < 1 else "nothing visible"
        fix = f"use a ratio between {1 / total:.3g} and {(total - 1) / total:.3g}"
        if total == 1:
            fix = "use smaller tubelets, so that there are several"
        raise MaskError(f"a mask ratio of {ratio} with {total} {what} leaves {problem}: {fix}")
    return total - hidden


def choose(
    total: int,
    keep: int,
    batch: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> torch.Tensor:
    """(batch, keep): in each row, `keep` distinct numbers below `total`, ascending."""
    # The largest of `total` random numbers are at `keep` random positions, without replacement.
    noise = torch.rand(batch, total, generator=generator, device=device)
    return noise.topk(keep, dim=1, sorted=False).indices.sort(dim=1).values


def hidden_tokens(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, N) bool, True for the tokens not in `visible` (B, V)."""
    shape = (visible.shape[0], tokens)
    hidden = torch.ones(shape, dtype=torch.bool, device=visible.device)
    return hidden.scatter(1, visible, False)


def _first_true(flags: torch.Tensor, count: int) -> torch.Tensor:
    """(B, count): indices of the True entries of each row, ascending; every row has `count` of them.

    A stable sort in place of `nonzero`, whose shape depends on the values.
    """
    return flags.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :count]


def complement(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, N - V): the tokens not in `visible` (B, V), ascending."""
    return _first_true(hidden_tokens(visible, tokens), tokens - visible.shape[1])


def all_targets(visible: torch.Tensor, queries: torch.Tensor) -> Mask:
    """A mask with a loss on every query."""
    targets = torch.arange(queries.shape[1], device=visible.device).expand_as(queries)
    return Mask(visible, queries, targets)


def with_targets(visible: torch.Tensor, queries: torch.Tensor, count: int, grid: TokenGrid) -> Mask:
    """A mask whose targets are the queries at hidden positions, `count` of them in every clip."""
    query_is_hidden = hidden_tokens(visible, grid.num_tokens).gather(1, queries)  # (B, Q)
    return Mask(visible, queries, _first_true(query_is_hidden, count))
