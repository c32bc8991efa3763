"""`Mask`, its error, and the drawing that all schemes share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vmae.grid import TokenGrid


@dataclass(frozen=True)
class Mask:
    """Three index tensors, one row a clip.

    visible  (B, V)  tokens the encoder sees, ascending
    queries  (B, Q)  positions that get a mask token in the decoder, ascending
    targets  (B, M)  indices into `queries`, ascending: the positions whose loss counts
    """

    visible: torch.Tensor
    queries: torch.Tensor
    targets: torch.Tensor

    @property
    def target_tokens(self) -> torch.Tensor:
        """(B, M): token indices of the positions whose loss counts."""
        return self.queries.gather(1, self.targets)

    def hidden(self, tokens: int) -> torch.Tensor:
        """(B, N) bool, True where the encoder does not see the token: for pictures and tests."""
        return hidden_tokens(self.visible, tokens)


class MaskError(ValueError):
    """A mask that the grid does not allow; the message names value, limit and way out."""


def count_kept(total: int, ratio: float, what: str) -> int:
    """How many stay: the official code hides int(ratio·total)."""
    hidden = int(ratio * total)
    if hidden >= total or hidden < 1:
        problem = "nothing to predict" if hidden < 1 else "nothing visible"
        raise MaskError(
            f"mask ratio {ratio} of {total} {what} leaves {problem}: use a ratio from "
            f"{1 / total:.3g} to {(total - 1) / total:.3g}"
        )
    return total - hidden


def choose(
    total: int,
    keep: int,
    batch: int,
    generator: torch.Generator | None,
    device: torch.device | str,
) -> torch.Tensor:
    """(batch, keep): for each row `keep` different numbers below `total`, ascending."""
    noise = torch.rand(batch, total, generator=generator, device=device)
    return noise.topk(keep, dim=1, sorted=False).indices.sort(dim=1).values


def hidden_tokens(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, N) bool, True where a token is not in `visible`."""
    shape = (visible.shape[0], tokens)
    hidden = torch.ones(shape, dtype=torch.bool, device=visible.device)
    return hidden.scatter(1, visible, False)


def _first_true(flags: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the True entries of each row, ascending, where every row has `count` of them."""
    return flags.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :count]


def complement(visible: torch.Tensor, tokens: int) -> torch.Tensor:
    """(B, N - V): the tokens not in `visible`, ascending."""
    return _first_true(hidden_tokens(visible, tokens), tokens - visible.shape[1])


def with_targets(visible: torch.Tensor, queries: torch.Tensor, count: int, grid: TokenGrid) -> Mask:
    """Targets: the queries that do not lie on `visible`; `count` of them in every clip."""
    asked_and_hidden = hidden_tokens(visible, grid.num_tokens).gather(1, queries)
    return Mask(visible, queries, _first_true(asked_and_hidden, count))
