"""Exercises of notebook 06: counts, decoder input, targets and loss, VideoMAE itself, a loop with a bug."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors.torch import load_file
from torch import nn

from vmae import ROOT, grid
from vmae.config import IMAGENET_MEAN, IMAGENET_STD, MaskConfig
from vmae.course import viz
from vmae.course.checks.core import Exercise
from vmae.course.checks.drawings import loss_among
from vmae.course.checks.modules import ModuleCase, module_exercise, weights_of
from vmae.data.reading.reader import read_frames, resize_frames
from vmae.data.reading.sampling import crop_square
from vmae.figures.colours import MASK_TOKEN
from vmae.grid import TokenGrid, gather_tokens, patchify, unpatchify
from vmae.init import init_linears
from vmae.layers import NORM_EPS, Block
from vmae.masking import Mask, all_hidden, dual, make_mask, running_cell_maps, tube_visible
from vmae.positions import sincos_1d

#: Sizes of the VideoMAE whose trained weights are in data/weights/film.
FILM: dict[str, Any] = {
    "num_frames": 16,
    "img_size": 112,
    "tubelet": (2, 8, 8),
    "embed_dim": 192,
    "depth": 6,
    "num_heads": 3,
    "decoder_embed_dim": 128,
    "decoder_depth": 4,
    "decoder_num_heads": 2,
    "normalize_targets": False,
}

# ---- reference solutions -------------------------------------------------------------------------


def visible_tokens(shape: tuple[int, int, int], ratio: float, family: str) -> int:
    """The number of tokens that the encoder sees of a grid (t, h, w).

    "mae" rounds down the number of visible tokens (`models_mae.py`), "random" that of hidden tokens,
    "tube" that of hidden tokens per time step (VideoMAE's `masking_generator.py`).
    """
    t, h, w = shape
    if family == "mae":
        return int(t * h * w * (1 - ratio))
    if family == "random":
        return t * h * w - int(ratio * t * h * w)
    return t * (h * w - int(ratio * h * w))


def normalize_targets(tokens: torch.Tensor) -> torch.Tensor:
    """VideoMAE's targets: standardise each channel of each token, (B, M, P) -> (B, M, P).

    Unbiased variance over the P / 3 pixels; 1e-6 is added to the standard deviation. Source:
    `engine_for_pretraining.py`.
    """
    pixels = tokens.unflatten(-1, (-1, 3))
    mean, std = pixels.mean(-2, keepdim=True), pixels.std(-2, keepdim=True)
    return ((pixels - mean) / (std + 1e-6)).flatten(-2)


def decoder_input(
    latents: torch.Tensor, mask_token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    """Visible tokens, then mask tokens, each with its position embedding: (B, V + Q, E).

    There is no unshuffling. Source: `modeling_pretrain.py`.
    """
    visible, queries = latents + positions[mask.visible], mask_token + positions[mask.queries]
    return torch.cat((visible, queries), dim=1)


def masked_loss(predictions: torch.Tensor, targets: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Mean squared error over the mask's targets: predictions (B, Q, P), targets (B, N, P)."""
    predicted = gather_tokens(predictions, mask.targets)
    return (predicted - gather_tokens(targets, mask.target_tokens)).square().mean()


class VideoMAEParts(nn.Module):
    """The parameters of VideoMAE V1, named as in `modeling_pretrain.py`; it computes nothing."""

    encoder: Any
    decoder: Any
    mean: torch.Tensor
    std: torch.Tensor
    pos_embed: torch.Tensor
    decoder_pos_embed: torch.Tensor

    def __init__(
        self,
        num_frames: int = 16,
        img_size: int = 224,
        tubelet: tuple[int, int, int] = (2, 16, 16),
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        decoder_embed_dim: int = 384,
        decoder_depth: int = 4,
        decoder_num_heads: int = 6,
        normalize_targets: bool = True,
    ) -> None:
        super().__init__()
        d, e = embed_dim, decoder_embed_dim
        self.grid = TokenGrid((num_frames, img_size, img_size), tubelet)
        self.normalize = normalize_targets
        self.encoder = nn.ModuleDict(
            {
                "patch_embed": nn.ModuleDict({"proj": nn.Conv3d(3, d, tubelet, tubelet)}),
                "blocks": nn.ModuleList(Block(d, num_heads) for _ in range(depth)),
                "norm": nn.LayerNorm(d, eps=NORM_EPS),
            }
        )
        self.encoder_to_decoder = nn.Linear(d, e, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, e))
        self.decoder = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(Block(e, decoder_num_heads) for _ in range(decoder_depth)),
                "norm": nn.LayerNorm(e, eps=NORM_EPS),
                "head": nn.Linear(e, self.grid.token_dim),
            }
        )
        init_linears(self.encoder)
        init_linears(self.decoder)
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        fixed = {
            "pos_embed": sincos_1d(self.grid.num_tokens, d),
            "decoder_pos_embed": sincos_1d(self.grid.num_tokens, e),
            "mean": torch.tensor(IMAGENET_MEAN).view(3, 1, 1, 1),
            "std": torch.tensor(IMAGENET_STD).view(3, 1, 1, 1),
        }
        for name, value in fixed.items():
            self.register_buffer(name, value, persistent=False)

    def embed(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) in [0, 1] -> (B, N, D): each tubelet by itself; no positions yet."""
        x = self.encoder.patch_embed.proj((clips - self.mean) / self.std)
        return x.flatten(2).transpose(1, 2)

    def patchify(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, 3, T, H, W) -> (B, N, P)."""
        return grid.patchify(clips, self.grid)


class VideoMAE(VideoMAEParts):
    """The whole of it, in stages that mistakes below replace."""

    def forward(self, clips: torch.Tensor, mask: Mask) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss and predictions (B, Q, P) for clips (B, 3, T, H, W) in [0, 1]."""
        latents = self._encode(self._visible(clips, mask))  # (B, V, D)
        x = self._joined(self.encoder_to_decoder(latents), mask)  # (B, V + Q, E)
        for block in self.decoder.blocks:
            x = block(x)
        predictions = self._pixels(x, mask)
        return self._loss(predictions, clips, mask), predictions

    def _visible(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        return gather_tokens(self.embed(clips) + self.pos_embed, mask.visible)

    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.encoder.blocks:
            x = block(x)
        return self.encoder.norm(x)

    def _joined(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return decoder_input(x, self.mask_token, self.decoder_pos_embed, mask)

    def _pixels(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.decoder.head(self.decoder.norm(x[:, -mask.queries.shape[1] :]))

    def _loss(self, predictions: torch.Tensor, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        targets = self.patchify(clips)
        return masked_loss(predictions, self._normalized(targets), mask)

    def _normalized(self, targets: torch.Tensor) -> torch.Tensor:
        return normalize_targets(targets) if self.normalize else targets


def pretrain(
    model: Any,
    clips: Iterable[torch.Tensor],
    scheme: MaskConfig,
    steps: int,
    lr: float,
    seed: int,
) -> list[float]:
    """Train a model whose forward returns (loss, predictions); the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for batch in islice(clips, steps):
        mask = make_mask(scheme, model.grid, len(batch), generator)
        loss, _ = model(batch, mask)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


# ---- mistakes ----------------------------------------------------------------------------------


def _rounded(shape: tuple[int, int, int], ratio: float, family: str) -> int:
    """Each count rounded to the nearest whole number, not down."""
    t, h, w = shape
    if family == "mae":
        return round(t * h * w * (1 - ratio))
    if family == "random":
        return t * h * w - round(ratio * t * h * w)
    return t * (h * w - round(ratio * h * w))


def _normalized(
    tokens: torch.Tensor,
    groups: int = 3,
    unbiased: bool = True,
    inside: bool = False,
    dims: tuple[int, ...] = (-2,),
) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (-1, groups))
    mean = pixels.mean(dims, keepdim=True)
    var = pixels.var(dims, keepdim=True, correction=int(unbiased))
    scale = (var + 1e-6).sqrt() if inside else var.sqrt() + 1e-6
    return ((pixels - mean) / scale).flatten(-2)


def _channel_first(tokens: torch.Tensor) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (3, -1))
    mean, std = pixels.mean(-1, keepdim=True), pixels.std(-1, keepdim=True)
    return ((pixels - mean) / (std + 1e-6)).flatten(-2)


def _only_centred(tokens: torch.Tensor) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (-1, 3))
    return (pixels - pixels.mean(-2, keepdim=True)).flatten(-2)


def _by_variance(tokens: torch.Tensor) -> torch.Tensor:
    pixels = tokens.unflatten(-1, (-1, 3))
    mean, var = pixels.mean(-2, keepdim=True), pixels.var(-2, keepdim=True)
    return ((pixels - mean) / (var + 1e-6)).flatten(-2)


Input = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Mask], torch.Tensor]


def _joined(visible: bool = True, queries: bool = True, swapped: bool = False) -> Input:
    """Both groups of tokens, with or without positions, possibly swapped."""

    def join(
        latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
    ) -> torch.Tensor:
        first = latents + visible * positions[mask.visible]
        second = (token + queries * positions[mask.queries]).expand(len(latents), -1, -1)
        return torch.cat((second, first) if swapped else (first, second), dim=1)

    return join


def _by_sequence_index(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    x = latents, token.expand(*mask.queries.shape, -1)
    batch, n = len(latents), mask.visible.shape[1] + mask.queries.shape[1]
    return torch.cat(x, dim=1) + positions[:n].expand(batch, -1, -1)


def _unshuffled(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    order = torch.cat((mask.visible, mask.queries), dim=1).argsort(dim=1, stable=True)
    return gather_tokens(decoder_input(latents, token, positions, mask), order)


def _positions_of_targets(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    asked = token + positions[mask.targets]
    return torch.cat((latents + positions[mask.visible], asked), dim=1)


def _first_clip(
    latents: torch.Tensor, token: torch.Tensor, positions: torch.Tensor, mask: Mask
) -> torch.Tensor:
    one = Mask(*(x[:1].expand_as(x) for x in (mask.visible, mask.queries, mask.targets)))
    return decoder_input(latents, token, positions, one)


def _wrong_loss(pick: Callable[[torch.Tensor, torch.Tensor, Mask], torch.Tensor]) -> Any:
    """The mean square of the differences that `pick` returns."""
    return lambda predicted, targets, mask: pick(predicted, targets, mask).square().mean()


def _difference(predicted: torch.Tensor, targets: torch.Tensor, mask: Mask) -> torch.Tensor:
    return gather_tokens(predicted, mask.targets) - gather_tokens(targets, mask.target_tokens)


def _rows_of_every_clip(predicted: torch.Tensor, targets: torch.Tensor, mask: Mask) -> torch.Tensor:
    return predicted[:, mask.targets] - targets[:, mask.target_tokens]  # (B, B, M, P)


def _rows_of_the_first_clip(
    predicted: torch.Tensor, targets: torch.Tensor, mask: Mask
) -> torch.Tensor:
    return predicted[:, mask.targets[0]] - targets[:, mask.target_tokens[0]]


class _NoPositions(VideoMAE):
    def _visible(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        return gather_tokens(self.embed(clips), mask.visible)


class _PositionsAfterMasking(VideoMAE):
    def _visible(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = gather_tokens(self.embed(clips), mask.visible)
        return x + self.pos_embed[: x.shape[1]]


class _HiddenAsZeros(VideoMAE):
    def _visible(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        x = self.embed(clips) + self.pos_embed
        return x * ~mask.hidden(x.shape[1])[..., None]

    def _joined(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return super()._joined(gather_tokens(x, mask.visible), mask)


class _SeesAll(_HiddenAsZeros):
    def _visible(self, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.embed(clips) + self.pos_embed


class _NoEncoderNorm(VideoMAE):
    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.encoder.blocks:
            x = block(x)
        return x


class _NormInLoop(VideoMAE):
    def _encode(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.encoder.blocks:
            x = self.encoder.norm(block(x))
        return x


class _GatheredQueries(VideoMAE):
    def _pixels(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.decoder.head(self.decoder.norm(gather_tokens(x, mask.queries)))


class _NoDecoderNorm(VideoMAE):
    def _pixels(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.decoder.head(x[:, -mask.queries.shape[1] :])


class _FirstTokens(VideoMAE):
    def _pixels(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.decoder.head(self.decoder.norm(x[:, : mask.queries.shape[1]]))


class _EveryToken(VideoMAE):
    """Predictions for all tokens, of which the loss takes the right ones."""

    def forward(self, clips: torch.Tensor, mask: Mask) -> tuple[torch.Tensor, torch.Tensor]:
        loss, _ = super().forward(clips, mask)
        return loss, self.every

    def _pixels(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        self.every = self.decoder.head(self.decoder.norm(x))
        return self.every[:, -mask.queries.shape[1] :]


class _NotSliced(VideoMAE):
    """Predictions for all tokens, of which the loss takes the wrong ones."""

    def _pixels(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return self.decoder.head(self.decoder.norm(x))


class _Unshuffled(VideoMAE):
    """The original order is restored, as in MAE, but the predictions are still the last ones."""

    def _joined(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return _unshuffled(x, self.mask_token, self.decoder_pos_embed, mask)


class _NoDecoderPositions(VideoMAE):
    def _joined(self, x: torch.Tensor, mask: Mask) -> torch.Tensor:
        return decoder_input(x, self.mask_token, 0 * self.decoder_pos_embed, mask)


class _PredictionsNormalized(VideoMAE):
    def _loss(self, predictions: torch.Tensor, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        return super()._loss(self._normalized(predictions), clips, mask)


class _Swapped(VideoMAE):
    def forward(self, clips: torch.Tensor, mask: Mask) -> tuple[torch.Tensor, torch.Tensor]:
        loss, predictions = super().forward(clips, mask)
        return predictions, loss


def _with_targets(
    targets: Callable[[VideoMAE, torch.Tensor], torch.Tensor],
) -> type[VideoMAE]:
    """A VideoMAE whose loss compares with other targets, of (model, clips)."""

    class Other(VideoMAE):
        def _loss(self, predictions: torch.Tensor, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
            return masked_loss(predictions, targets(self, clips), mask)

    return Other


class _Detached(VideoMAE):
    def _loss(self, predictions: torch.Tensor, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        return super()._loss(predictions.detach(), clips, mask)


class _IndicesOfQueries(VideoMAE):
    """The right tokens are taken from the wrong end: the first Q of the clip."""

    def _loss(self, predictions: torch.Tensor, clips: torch.Tensor, mask: Mask) -> torch.Tensor:
        targets = self._normalized(self.patchify(clips))
        return (predictions - targets[:, : predictions.shape[1]]).square().mean()


def _as_mae(model: VideoMAE, clips: torch.Tensor) -> torch.Tensor:
    tokens = model.patchify(clips)
    return _normalized(tokens, groups=1) if model.normalize else tokens


# ---- the training loop, judged by what every right one has in common --------------------------------

SAME_MASKS = (
    "all steps use the same masks, so the model memorises what is behind them: seed the generator once, "
    "before the loop, and draw a mask inside it"
)
NOT_A_LIST = "the result is {0}; expected a list of {1} losses, one for each step"
NOT_FLOATS = (
    "the losses are of type {0}; expected float: use loss.item(), which also frees the graph"
)
UNTRAINED = "the model's parameters have not changed: call loss.backward() and optimizer.step() in each step"
UNSEEDED = (
    "two runs with the same seed draw different masks: pass the seeded generator to make_mask"
)
IGNORED = "runs with different seeds draw the same masks: seed the generator with `seed`"
NO_PROGRESS = "the loss does not fall: zero the gradients, call backward and step the optimizer"


class _Recorder(VideoMAE):
    """Notes which masks it was given."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            num_frames=8, img_size=32, tubelet=(2, 8, 8), embed_dim=64, depth=3, num_heads=2,
            decoder_embed_dim=48, decoder_depth=2, decoder_num_heads=2,
        )  # fmt: skip
        self.masks: list[torch.Tensor] = []

    def forward(self, clips: torch.Tensor, mask: Mask) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training:
            self.masks.append(mask.visible.clone())
        return super().forward(clips, mask)


def _trained(answer: Any, steps: int, seed: int = 3, luck: int = 1) -> tuple[_Recorder, Any]:
    """A model and what the loop returns; `luck` is of draws without the seeded generator."""
    model, scheme = _Recorder(), MaskConfig("tube", 0.75)
    torch.manual_seed(luck)
    batches = (_clip(8, 32).expand(2, -1, -1, -1, -1) for _ in range(steps))
    return model, answer(model, batches, scheme, steps, 6e-3, seed)


def _show_losses(model: _Recorder, losses: Any) -> None:
    """The curve, and the loss under masks that the model has not met."""
    mask = make_mask(MaskConfig("tube", 0.75), model.grid, 64, torch.Generator().manual_seed(99))
    with torch.no_grad():
        fresh = float(model.eval()(_clip(8, 32).expand(64, -1, -1, -1, -1), mask)[0])
    viz.lines(
        range(len(losses)),
        {"your loop": [torch.as_tensor(x).item() for x in losses]},
        "The loss over the steps of your loop, trained on one clip of the film; a dashed line marks the "
        f"loss of the trained model under new masks, {fresh:.2f}.",
        xlabel="step",
        ylabel="loss",
        levels={"new masks": fresh},
    )


def _judge_loop(answer: Any) -> str | None:
    steps = 150
    before = [p.detach().clone() for p in _Recorder().parameters()]
    model, losses = _trained(answer, steps)
    with suppress(Exception):  # a wrong result cannot always be drawn
        _show_losses(model, losses)
    if not isinstance(losses, list | tuple) or len(losses) != steps:
        kind = (
            f"{len(losses)} values" if isinstance(losses, list | tuple) else type(losses).__name__
        )
        return NOT_A_LIST.format(kind, steps)
    if not all(isinstance(x, float) for x in losses):
        return NOT_FLOATS.format(type(losses[0]).__name__)
    if all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)):
        return UNTRAINED
    if all(torch.equal(model.masks[0], other) for other in model.masks):
        return SAME_MASKS
    again, other = (_trained(answer, 3, *seeds)[0].masks for seeds in ((3, 2), (4, 2)))
    if not all(torch.equal(a, b) for a, b in zip(model.masks, again, strict=False)):
        return UNSEEDED
    if all(torch.equal(a, b) for a, b in zip(again, other, strict=True)):
        return IGNORED
    return NO_PROGRESS if np.mean(losses[-10:]) > 0.9 * np.mean(losses[:10]) else None


# ---- inputs and drawings -------------------------------------------------------------------------

_GRID = TokenGrid((8, 8, 8), (2, 2, 2))  # 4x4x4 tokens of 24 values
#: Two frames of the film in tubelets of one frame: 2 x 6 x 10 tokens of 192 values.
_FILM_GRID = TokenGrid((2, 48, 80), (1, 8, 8))


@cache
def _film(rows: int) -> torch.Tensor:
    """64 frames (T, H, W, 3) uint8 of the shot that ships with the course, a rabbit that gets up."""
    path = ROOT / "data" / "big_buck_bunny_shot.mp4"
    return torch.from_numpy(resize_frames(read_frames(path, lambda _: np.arange(128)), rows))


def _clip(frames: int, size: int) -> torch.Tensor:
    """The middle square of every fourth frame, (1, 3, T, H, W) in [0, 1]."""
    square = torch.from_numpy(crop_square(_film(size).numpy()))[: 4 * frames : 4]
    return rearrange(square, "t h w c -> 1 c t h w") / 255


def _film_tokens() -> torch.Tensor:
    """Tokens (1, 120, 192) of two frames that are far apart."""
    left = (_film(48).shape[2] - 80) // 2
    two = rearrange(_film(48)[[0, 100], :, left : left + 80], "t h w c -> 1 c t h w") / 255
    return patchify(two, _FILM_GRID)


def _first_frame(tokens: torch.Tensor) -> torch.Tensor:
    """The first 60 of tokens (1, ..., 192) as a picture."""
    return unpatchify(tokens[:1, :120].detach(), _FILM_GRID)[0, :, 0]


def _masks(g: torch.Generator, batch: int) -> tuple[Mask, Mask]:
    """One mask of V1, and one of V2, which has fewer targets than queries."""
    visible = tube_visible(_GRID, 0.75, None, batch, g)
    return all_hidden(visible, _GRID), dual(visible, _GRID, running_cell_maps(_GRID, 0.5), g)


def _count_cases(_: torch.Generator) -> list[tuple[Any, ...]]:
    """First those in which rounding to the nearest is right, and rounding the other side isn't."""
    low, high = ((3, 4, 9), 0.85), ((16, 14, 14), 0.9)  # of 108: 16.2 visible; of 3136: 313.6
    shapes = (high, low, ((8, 14, 14), 0.9), ((4, 5, 7), 0.8), ((8, 14, 14), 0.75))
    cases = [(*low, "mae"), (*high, "random"), (*high, "tube")]
    return cases + [(*shape, family) for shape in shapes for family in ("mae", "random", "tube")]


def _target_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    film = _film_tokens()
    film[:, 7] = 0.5 + 1e-3 * torch.randn(192, generator=g)  # a little noise on grey
    tokens = torch.rand(2, 6, 24, generator=g) * torch.rand(2, 6, 1, generator=g)
    tokens = tokens + torch.tensor([0.0, 0.3, 0.6]).repeat(8)
    tokens[:, 2] = 0.02 + 1e-3 * torch.randn(
        2, 24, generator=g
    )  # nearly flat, so that the epsilon matters
    flat = torch.rand(1, 4, 48, generator=g)
    flat[0, 1] = 0.25
    return [(film,), (tokens,), (flat,)]


def _input_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    film = _film_tokens()
    order = torch.rand(1, 120, generator=g).argsort(1)
    visible, queries = order[:, :36].sort(1).values, order[:, 36:].sort(1).values
    mask = Mask(visible, queries, torch.arange(84)[None])
    token = (0.8 * _rgb(MASK_TOKEN.colour)).repeat(64).view(1, 1, 192)
    ramp = torch.linspace(0, 0.2, 120)[:, None].expand(-1, 192).contiguous()
    cases: list[tuple[Any, ...]] = [(0.8 * gather_tokens(film, visible), token, ramp, mask)]
    for mask in _masks(g, 2):
        latents = torch.randn(*mask.visible.shape, 10, generator=g)
        token = torch.randn(1, 1, 10, generator=g)
        cases.append((latents, token, torch.randn(64, 10, generator=g), mask))
    return cases


def _rgb(colour: str) -> torch.Tensor:
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _loss_cases(g: torch.Generator) -> list[tuple[Any, ...]]:
    cases: list[tuple[Any, ...]] = []
    for mask in reversed(_masks(g, 2)):  # V2 first: only there do queries and targets differ
        targets = torch.randn(2, 64, 24, generator=g)
        right = gather_tokens(targets, mask.queries)
        noise = 1.5 * torch.randn(
            right.shape, generator=g
        )  # more of it where the loss is not taken
        noise.scatter_(1, mask.targets[..., None].expand(-1, -1, 24), 0.8)
        noise *= torch.rand(right.shape, generator=g)
        cases.append((right + noise, targets, mask))
    return cases


def _small(normalize: bool = True) -> dict[str, Any]:
    return {
        "num_frames": 6, "img_size": 16, "tubelet": (2, 4, 4), "embed_dim": 24, "depth": 2,
        "num_heads": 3, "decoder_embed_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2,
        "normalize_targets": normalize,
    }  # fmt: skip


#: The film model on the first two time steps only: its positions are those of any longer clip.
_SHORT = FILM | {"num_frames": 4}


@cache
def _shipped() -> dict[str, torch.Tensor]:
    """The trained weights of data/weights/film."""
    return load_file(ROOT / "data" / "weights" / "film" / "model.safetensors")


def _weights(reference: type[nn.Module], arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The trained weights for the model of the film, else random ones."""
    return _shipped() if arguments == _SHORT else weights_of(reference, arguments)


def _videomae_cases(g: torch.Generator) -> list[ModuleCase]:
    grid = VideoMAEParts(**_SHORT).grid
    cases: list[ModuleCase] = [
        (_SHORT, (_clip(4, 112), make_mask(MaskConfig("tube", 0.75), grid, 1, g)))
    ]
    schemes = MaskConfig("tube", 0.75), MaskConfig("random", 0.75)
    for normalize, scheme in zip((True, False), schemes, strict=True):
        arguments = _small(normalize)
        clips = torch.rand(3, 3, 6, 16, 16, generator=g)
        mask = make_mask(scheme, VideoMAEParts(**arguments).grid, 3, g)
        cases.append((arguments, (clips, mask)))
    return cases


def _draw_count(result: int, shape: tuple[int, int, int], *_: Any) -> None:
    t, h, w = shape
    seen = (torch.arange(t * h * w) < result).view(t, h * w).float()
    viz.pictures(
        {f"{t * h * w} tokens; you count {result} as visible": seen},
        "A matrix of all tokens, one row per time step; the number you counted are lit.",
        height=0.6,
    )


def _draw_targets(result: torch.Tensor, tokens: torch.Tensor) -> None:
    both = {"yours": result, "expected": normalize_targets(tokens)}
    viz.pictures(
        {"a frame of the film": _first_frame(tokens)}
        | {name: _first_frame(x / 5 + 0.5) for name, x in both.items()},
        "A frame of the film; the same with its tokens as your function normalises them, and as they should "
        "be: every token has the same mean and contrast in each colour.",
        height=1.4,
    )


def _draw_input(result: torch.Tensor, *case: Any) -> None:
    both = {"yours": result, "expected": decoder_input(*case)}
    viz.pictures(
        {
            name: rearrange(x[0, :120].detach(), "(h w) (p q c) -> c (h p) (w q)", h=6, p=8, c=3)
            for name, x in both.items()
        },
        "The sequence that your decoder would read, line by line, and the expected one: first visible "
        "patches of two frames, then mask tokens; the later its position, the brighter a token.",
        height=1.2,
    )


def _draw_loss(
    result: torch.Tensor, predictions: torch.Tensor, targets: torch.Tensor, mask: Mask
) -> None:
    error = (predictions - gather_tokens(targets, mask.queries)).square().mean(-1)
    counted = torch.zeros_like(error).scatter(1, mask.targets, 1.0).bool()
    loss_among(
        {
            "other queries": error[~counted].mean(),
            "all queries": error.mean(),
            "targets": error[counted].mean(),
        },
        result,
    )


def _draw_videomae(result: Any, arguments: dict[str, Any], inputs: tuple[Any, ...]) -> None:
    clips, mask = inputs
    grid = VideoMAEParts(**arguments).grid
    tokens = patchify(clips, grid)
    grey = tokens.clone()
    where = mask.target_tokens[..., None].expand(-1, -1, grid.token_dim)
    grey.scatter_(1, where, 0.6)
    filled = tokens.scatter(1, where, result[1].detach())
    viz.pictures(
        {
            "visible": unpatchify(grey, grid)[0, :, 0],
            "with your predictions": unpatchify(filled, grid)[0, :, 0].clamp(0, 1),
        },
        "A frame of the film, three quarters of it grey; and the same with what your model predicts there "
        "with the shipped weights.",
        height=1.8,
    )


EXERCISES = (
    Exercise(
        "06.visible_tokens",
        visible_tokens,
        _count_cases,
        {
            "the count is rounded to the nearest whole number: round down, with int": _rounded,
            "for MAE, the number of hidden tokens is rounded down, as in VideoMAE: round down "
            "the number of visible tokens instead, int(N·(1 - ratio)), which gives 313 of "
            "3136": (
                lambda shape, ratio, family: visible_tokens(
                    shape, ratio, "random" if family == "mae" else family
                )
            ),
            "for random masking, the number of visible tokens is rounded down, as in MAE: "
            "hide int(ratio·N) tokens and keep the rest, which gives 314 of 3136": (
                lambda shape, ratio, family: visible_tokens(
                    shape, ratio, "mae" if family == "random" else family
                )
            ),
            "for tubes, the count is rounded for the whole clip: round the count for the h·w "
            "positions of a single time step, then multiply by t": (
                lambda shape, ratio, family: visible_tokens(
                    shape, ratio, "random" if family == "tube" else family
                )
            ),
            "the result is the number of hidden tokens: subtract it from the total": (
                lambda shape, ratio, family: (
                    shape[0] * shape[1] * shape[2] - visible_tokens(shape, ratio, family)
                )
            ),
            "for tubes, the number of visible positions is rounded down: round down the hidden ones, "
            "int(ratio·h·w), and subtract them from h·w": (
                lambda shape, ratio, family: (
                    shape[0] * int(shape[1] * shape[2] * (1 - ratio))
                    if family == "tube"
                    else visible_tokens(shape, ratio, family)
                )
            ),
            "the result is not a whole number: round as the docstring says, with int": (
                lambda shape, ratio, family: (
                    shape[0] * shape[1] * shape[2] * (1 - ratio)
                    if family == "mae"
                    else visible_tokens(shape, ratio, family)
                )
            ),
            "for tubes, only one time step is counted: multiply by t": lambda shape, ratio, family: (
                visible_tokens((1, *shape[1:]) if family == "tube" else shape, ratio, family)
            ),
        },
        draw=_draw_count,
    ),
    Exercise(
        "06.normalize_targets",
        normalize_targets,
        _target_cases,
        {
            "all values in a token are standardised together, as in MAE: standardise each "
            "channel separately, as in VideoMAE": lambda x: _normalized(x, groups=1),
            "the targets are computed as in MAE, with all values standardised together and "
            "the epsilon inside the square root: standardise each channel separately, and add "
            "1e-6 to the standard deviation": (
                lambda x: _normalized(x, groups=1, inside=True)
            ),
            "the epsilon is inside the square root: add 1e-6 to the standard deviation "
            "instead, as in VideoMAE": (
                lambda x: _normalized(x, inside=True)
            ),
            "the variance is biased: divide by the number of pixels minus one, as in "
            "torch.std": lambda x: _normalized(x, unbiased=False),
            "the variance is biased and the epsilon is inside the square root: use torch.std, "
            "and add 1e-6 to its result": (
                lambda x: _normalized(x, unbiased=False, inside=True)
            ),
            "P is split in the wrong order: split it as (pixels, 3), since the channel varies "
            "fastest": (
                _channel_first
            ),
            "the mean and standard deviation are computed over all tokens of a clip: compute "
            "them per token": (
                lambda x: _normalized(x, dims=(-3, -2))
            ),
            "each pixel is standardised over its three channels: take mean and deviation over the pixels, "
            "dim=-2": lambda x: _normalized(x, dims=(-1,)),
            "each channel is divided by the variance: divide it by the standard deviation, the root": (
                _by_variance
            ),
            "only the mean is subtracted: divide by the standard deviation as well": _only_centred,
            "the epsilon is missing, so constant tokens cause a division by zero: add 1e-6 to "
            "the standard deviation": lambda x: (
                _only_centred(x).unflatten(-1, (-1, 3))
                / x.unflatten(-1, (-1, 3)).std(-2, keepdim=True)
            ).flatten(-2),
        },
        draw=_draw_targets,
    ),
    Exercise(
        "06.decoder_input",
        decoder_input,
        _input_cases,
        {
            "the mask tokens come first: put the visible tokens before them, since the "
            "predictions are read from the end of the sequence": _joined(swapped=True),
            "the mask tokens lack position embeddings, so they and their predictions are all "
            "identical: add positions[mask.queries]": _joined(queries=False),
            "the latents lack position embeddings: add positions[mask.visible], since the "
            "decoder has its own position table": _joined(visible=False),
            "the tokens lack position embeddings: add positions[mask.visible] and "
            "positions[mask.queries]": (
                _joined(visible=False, queries=False)
            ),
            "positions are added in sequence order: index the position table with "
            "mask.visible and mask.queries, since each token keeps its position in the clip": (
                _by_sequence_index
            ),
            "the tokens are unshuffled, as in MAE: keep the visible tokens first, as in "
            "VideoMAE": (
                _unshuffled
            ),
            "the mask tokens get positions[mask.targets], but targets are indices into the queries: use "
            "mask.queries": _positions_of_targets,
            "every clip gets the first clip's positions: use each clip's own row of the mask": (
                _first_clip
            ),
        },
        draw=_draw_input,
    ),
    Exercise(
        "06.masked_loss",
        masked_loss,
        _loss_cases,
        {
            "the loss is averaged over all queries: include only the queries in mask.targets": _wrong_loss(
                lambda predicted, targets, mask: predicted - gather_tokens(targets, mask.queries)
            ),
            "the targets are gathered with mask.targets, which indexes the queries: gather them "
            "with the token indices, mask.target_tokens": _wrong_loss(
                lambda predicted, targets, mask: (
                    gather_tokens(predicted, mask.targets) - gather_tokens(targets, mask.targets)
                )
            ),
            "x[:, index] takes the rows of every clip for each clip, (B, B, M, P): use gather_tokens, which "
            "takes each clip's own": _wrong_loss(_rows_of_every_clip),
            "every clip is compared at the first clip's indices: use each clip's own row of the mask": (
                _wrong_loss(_rows_of_the_first_clip)
            ),
            "the squared errors are summed: average them instead": (
                lambda *given: _difference(*given).square().sum()
            ),
            "the errors are summed over pixels: average over pixels too": lambda *given: (
                _difference(*given).square().sum(-1).mean()
            ),
            "the summed error of the targets is divided by the number of queries: divide it "
            "by the number of targets": (
                lambda predicted, targets, mask: (
                    masked_loss(predicted, targets, mask) * mask.targets.shape[1] / mask.queries.shape[1]
                )
            ),
            "the loss is the mean absolute error: square the differences instead": (
                lambda *given: _difference(*given).abs().mean()
            ),
            "the loss is the root mean squared error: do not take the square root": lambda *given: (
                masked_loss(*given).sqrt()
            ),
        },
        draw=_draw_loss,
    ),
    module_exercise(
        "06.VideoMAE",
        VideoMAE,
        _videomae_cases,
        {
            "the encoder's positions are missing: add pos_embed to the embedded tubelets": _NoPositions,
            "the positions are added after masking, so the visible tokens get those of the first ones: "
            "add pos_embed to all tokens, then keep the visible ones": _PositionsAfterMasking,
            "the hidden tokens are set to zero, but still encoded: keep the visible ones only, (B, V, D), "
            "with gather_tokens": _HiddenAsZeros,
            "the encoder sees all tokens, hidden ones too: keep the visible ones before the first block": (
                _SeesAll
            ),
            "encoder.norm is missing after the encoder's blocks": _NoEncoderNorm,
            "encoder.norm is applied after every block: apply it once, after the last": _NormInLoop,
            "the decoder's output is gathered with mask.queries, which are indices into the clip: the "
            "queries are its last Q tokens, x[:, -Q:]": _GatheredQueries,
            "decoder.norm is missing before decoder.head": _NoDecoderNorm,
            "the decoder gets no positions: pass decoder_pos_embed to decoder_input": _NoDecoderPositions,
            "the tokens are put back in order before the decoder, but the predictions are read from its "
            "end: leave the visible tokens first": _Unshuffled,
            "the predictions are read from the first tokens, where the visible ones are: take the last Q, "
            "x[:, -Q:]": _FirstTokens,
            "the slice is missing: keep the decoder's last Q tokens, x[:, -Q:], since masked_loss expects "
            "predictions (B, Q, P)": _NotSliced,
            "pixels are predicted for all tokens: return those of the queries only, (B, Q, P)": _EveryToken,
            "the targets are never normalised: use normalize_targets if self.normalize": _with_targets(
                lambda model, clips: model.patchify(clips)
            ),
            "the targets are always normalised: do so only if self.normalize": _with_targets(
                lambda model, clips: normalize_targets(model.patchify(clips))
            ),
            "the targets are normalised over all channels together, as in MAE: use your "
            "normalize_targets": _with_targets(_as_mae),
            "the targets are taken from pixels with ImageNet's mean taken out: patchify the clips as they "
            "come, in [0, 1]": _with_targets(
                lambda model, clips: model._normalized(
                    model.patchify((clips - model.mean) / model.std)
                )
            ),
            "the predictions are normalised too: normalise the targets only": _PredictionsNormalized,
            "the predictions are compared with the first Q tokens of the clip: masked_loss picks the "
            "right ones": _IndicesOfQueries,
            "nothing can learn from this loss, since it is cut off from the predictions: no detach(), "
            "no item()": _Detached,
            "the two results are swapped: return the loss, then the predictions": _Swapped,
        },
        draw=_draw_videomae,
        weights=_weights,
    ),
    Exercise("06.pretrain", pretrain, judge=_judge_loop),
)  # fmt: skip
