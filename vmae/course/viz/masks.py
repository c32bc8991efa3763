"""A mask as a picture of its tokens, in the colour code of the diagrams."""

from __future__ import annotations

import torch
from matplotlib.colors import to_rgb

from vmae.figures.colours import HIDDEN, MASK_TOKEN, TARGET, VISIBLE
from vmae.grid import TokenGrid
from vmae.masking import Mask

#: Pixels along the side of a token.
SIDE = 8


def roles(mask: Mask, grid: TokenGrid, clip: int = 0) -> torch.Tensor:
    """The tokens of one clip, (3, t, SIDE·h, SIDE·w) in [0, 1].

    Blue: visible. Orange: target. Outlined: queried without loss, on blue if visible, else on light
    grey. Hatched: hidden and not queried.
    """
    t, h, w = grid.shape
    kind = torch.zeros(grid.num_tokens, dtype=torch.long)
    kind[mask.queries[clip]] = 1
    kind[mask.target_tokens[clip]] = 2
    kind[mask.visible[clip]] += 3  # 3: not queried, 4: queried without loss, 5: with loss
    tiles = _tiles()[kind].view(t, h, w, SIDE, SIDE, 3)
    # (t, h, w, side, side, 3) -> (3, t, h·side, w·side)
    return tiles.permute(5, 0, 1, 3, 2, 4).reshape(3, t, h * SIDE, w * SIDE)


def _tiles() -> torch.Tensor:
    """(6, SIDE, SIDE, 3): the picture of each kind of token."""
    hatched, bare, target, visible = (
        torch.tensor(to_rgb(role.colour)).repeat(SIDE, SIDE, 1)
        for role in (HIDDEN, MASK_TOKEN, TARGET, VISIBLE)
    )
    hatched[range(SIDE), range(SIDE)[::-1]] = 0.45
    outlined = [x.clone() for x in (bare, visible)]
    for x in outlined:
        x[0], x[-1], x[:, 0], x[:, -1] = 0.0, 0.0, 0.0, 0.0
    both = target.clone()  # a target that the encoder sees
    both[2:-2, 2:-2] = visible[0, 0]
    return torch.stack([hatched, outlined[0], target, visible, outlined[1], both])
