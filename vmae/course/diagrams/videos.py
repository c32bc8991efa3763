"""Diagrams of clips: tubelets, and Conv3d beside a linear layer."""

from __future__ import annotations

from vmae.config import ModelConfig
from vmae.course.diagrams.drawing import Canvas, Diagram, shape
from vmae.figures.colours import ENCODER, NEUTRAL, VISIBLE, Role

#: The cubes of a clip, beside the one that is pulled out.
CLIP = Role("clip", ENCODER.tint)


def tubelets(config: ModelConfig) -> Diagram:
    """A clip cut into tubelets, one of them pulled out, flattened and projected to a token."""
    grid, draw = config.grid, Canvas()
    (t, h, w), (p_t, p_h, p_w), p = grid.shape, grid.tubelet, grid.token_dim
    side = 128 / max(h, w)
    thick = (min(0.9 * side * p_t, 150 / t), -0.42 * min(0.9 * side * p_t, 150 / t))
    left, top = 60.0, 108.0
    plain: list[list[Role | None]] = [[CLIP] * w for _ in range(h)]
    picked = [[VISIBLE if (i, j) == (0, w - 1) else CLIP for j in range(w)] for i in range(h)]
    for step in range(t - 1, -1, -1):
        at = (left + step * thick[0], top + step * thick[1])
        draw.slab(*at, picked if step == t - 1 else plain, side, thick, step == 0)
    draw.heading(150, 24, "clip")
    draw.text(150, 304, f"{shape(config.channels, *grid.clip)}: channels, time, height, width")
    draw.text(150, 324, f"{t} × {h} × {w} = {grid.num_tokens} tubelets", 13, bold=True)
    edge = left + 0.62 * side * w + t * thick[0]
    corner = (left, top), (left + 0.62 * side * w, top + side * (h + 0.3 * w))
    draw.text(corner[0][0] - 8, top + side * h / 2 + 4, "height", 12, "end", bold=True)
    draw.text(
        left + 0.3 * side * w - 6, top + side * (h + 0.15 * w) + 20, "width", 12, "end", bold=True
    )
    draw.text(corner[1][0] + t * thick[0] / 2 + 8, corner[1][1] + t * thick[1] / 2 + 16, "time", 12,
              "start", bold=True)  # fmt: skip
    draw.arrow((edge + 6, top + 0.3 * side * w + t * thick[1] + 0.5 * side), (358, 160))
    x, y, cell = 372.0, 122.0, 74 / max(p_h, p_w)
    for k in range(p_t - 1, -1, -1):
        plane: list[list[Role | None]] = [[VISIBLE] * p_w for _ in range(p_h)]
        draw.cells(x + 34 * k, y - 15 * k, plane, (0.85 * cell, 0.26 * cell), (0, cell))
    draw.heading(x + 50, 24, "one tubelet")
    frames = f"{p_t} frame{'s' * (p_t > 1)} of {p_h} × {p_w} pixels,"
    draw.lines(x + 50, 252, [frames, f"{config.channels} channels each"])
    draw.text(x + 50, 304, f"{p_t} × {p_h} × {p_w} × {config.channels} = {p} values")
    draw.arrow((494, 170), (530, 170))
    for y in (74, 186):
        draw.cells(540, y, [[VISIBLE]] * 6, (16, 0), (0, 14))
    draw.dots(548, 164, (0, 8))
    draw.heading(548, 24, "flattened")
    draw.text(556, 304, shape(p))
    draw.arrow((564, 170), (598, 170))
    draw.box(602, 134, 104, 72, ["linear", f"{p} → {config.embed_dim}"], ENCODER)
    draw.text(654, 304, "shared by all")
    draw.arrow((706, 170), (746, 170))
    draw.token(754, 156, VISIBLE, 28)
    draw.heading(768, 24, "one token")
    draw.text(768, 304, shape(config.embed_dim))
    draw.text(684, 324, f"all tokens: {shape(grid.num_tokens, config.embed_dim)}", 13, bold=True)
    alt = (
        f"A clip of {shape(*grid.clip)} cut into {t} × {h} × {w} = {grid.num_tokens} tubelets of {p_t} "
        f"frames of {p_h} × {p_w} pixels; one of them flattened to {p} values and projected to a token "
        f"of {config.embed_dim}."
    )
    return draw.finish(342, alt)


def conv_and_linear(config: ModelConfig) -> Diagram:
    """Conv3d whose stride is its kernel, beside patchify and a linear layer: one computation."""
    grid, d, draw = config.grid, config.embed_dim, Canvas()
    p, n = grid.token_dim, grid.num_tokens
    clip = shape(config.channels, *grid.clip)
    kernel = " × ".join(map(str, grid.tubelet))
    draw.box(16, 82, 132, 64, ["clip", clip])
    draw.lines(82, 166, ["channels, time,", "height, width"])
    rows = (
        (64, "Conv3d", [f"kernel {kernel}", f"stride {kernel}"],
         "flatten", shape(d, *grid.shape), shape(d, config.channels, *grid.tubelet)),
        (164, "patchify", ["no parameters"], "linear", shape(n, p), shape(d, p)),
    )  # fmt: skip
    for y, first, lines, second, between, weight in rows:
        draw.arrow((148, 114), (172, 114), (172, y), (204, y))
        draw.box(208, y - 34, 160, 68, [first, *lines], NEUTRAL if first == "patchify" else ENCODER)
        draw.arrow((368, y), (508, y))
        draw.text(438, y - 10, between)
        last = [second, f"{p} → {d}"] if second == "linear" else [second, "to a list"]
        draw.box(512, y - 34, 118, 68, last, ENCODER if second == "linear" else NEUTRAL)
        draw.arrow((630, y), (672, y), (672, 114), (704, 114))
        x = 288 if first == "Conv3d" else 571
        draw.text(x, y + (-46 if first == "Conv3d" else 54), f"weight {weight}")
    draw.box(708, 82, 132, 64, ["tokens", shape(n, d)])
    count = d * p + d
    draw.text(430, 248, f"the same {count:,} parameters and the same tokens", 13, bold=True)
    draw.text(430, 268, "the linear layer can embed the visible tubelets alone")
    alt = (
        f"Two ways from a clip {clip} to tokens {shape(n, d)}. Conv3d with kernel and stride {kernel}, "
        f"weight {shape(d, config.channels, *grid.tubelet)}, then flatten; or patchify to {shape(n, p)} "
        f"and a linear layer, weight {shape(d, p)}. The same {count:,} parameters, the same tokens."
    )
    return draw.finish(284, alt)
