"""Checks of classes: every slip in structure is named, and a module is judged by what it does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vmae.course.checks import verdict
from vmae.course.checks.modules import module_exercise


class Net(nn.Module):
    """Two layers, a token, a norm."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, width))
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.token
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.norm(x)


class NoToken(Net):
    def forward(self, x):
        return super().forward(x - self.token)


EXERCISE = module_exercise(
    "99.Net",
    Net,
    lambda g: [
        ({"width": 6, "depth": 2}, (torch.randn(3, 6, generator=g),)),
        ({"width": 5, "depth": 3}, (torch.randn(2, 5, generator=g),)),
    ],
    {"the token is not added": NoToken},
    renamed={"layers": "blocks"},
)


class OtherStyle(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])
        self.register_parameter("token", nn.Parameter(torch.randn(1, width)))

    def forward(self, x):
        x = self.token + x
        for i in range(len(self.blocks)):
            x = torch.tanh(self.blocks[i](x)) + x
        return self.norm(x)


@pytest.mark.parametrize("answer", [Net, OtherStyle])
def test_right_classes_pass_in_any_style(answer):
    assert verdict(EXERCISE, answer) is None


def changed(text: str) -> type[nn.Module]:
    """Net with `text` run at the end of its constructor."""

    class Changed(Net):
        def __init__(self, width: int, depth: int) -> None:
            super().__init__(width, depth)
            exec(text, globals(), {"self": self, "width": width, "depth": depth})

    return Changed


class NoSuper(nn.Module):
    def __init__(self, width, depth):
        self.norm = nn.LayerNorm(width)


class NotAModule:
    def __init__(self, width, depth): ...


class Detached(Net):
    def forward(self, x):
        return self.norm(super().forward(x).detach())


class TokenDetached(Net):
    def forward(self, x):
        x = x + self.token.detach()
        for block in self.blocks:
            x = x + block(x).tanh()
        return self.norm(x)


class FirstCaseOnly(Net):
    def forward(self, x):
        return super().forward(x.reshape(3, 6))


class Remembers(Net):
    """Right at the first call alone."""

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) * (1 if self.calls == 1 else 2)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Net(6, 2), "pass the class, `Net`, not an object"),
        (NotAModule, "must be a subclass of nn.Module"),
        (NoSuper, r"`super\(\).__init__\(\)` is missing"),
        (changed("del self.blocks; self.blocks = [nn.Linear(width, width)]"), "nn.ModuleList"),
        (changed("self.layers = self.blocks; del self.blocks"), "`layers` must be called `blocks`"),
        (changed("self.normal = self.norm; del self.norm"), "`normal` must be called `norm`"),
        (
            changed("self.blocks[0] = nn.Sequential(self.blocks[0])"),
            "`blocks.0.0` must be called `blocks.0.weight`",
        ),
        (changed("self.norm = nn.LayerNorm(width, bias=False)"), "`norm` has no bias"),
        (changed("t = self.token.data; del self.token; self.token = t"), "is a plain tensor"),
        (changed("del self.norm"), r"there is no `norm.weight`, of shape \(6,\)"),
        (changed("self.extra = nn.Linear(2, 2)"), "`extra.weight` is not on the card"),
        (
            changed("t = self.token.data; del self.token; self.register_buffer('token', t)"),
            "`token` is a buffer, and is not trained",
        ),
        (changed("self.blocks[0] = nn.Linear(width, width, bias=False)"), "`blocks.0` has no bias"),
        (
            changed("self.token = nn.Parameter(torch.zeros(width))"),
            r"`token` has shape \(6,\); expected \(1, 6\) \(made with width=6, depth=2\)",
        ),
        (changed("self.blocks[1] = self.blocks[0]"), "is one shared"),
        (
            changed("self.blocks = nn.ModuleList(list(self.blocks)[:2])"),
            "made with width=5, depth=3",
        ),
        (NoToken, "the token is not added"),
        (Detached, "output|gradient"),
        (TokenDetached, "the gradient of `token`: there is none"),
        (FirstCaseOnly, "it raises RuntimeError"),
        (Remembers, "trained: "),
        (lambda width, depth: 1 / 0, "it raises ZeroDivisionError"),
    ],
)
def test_each_slip_is_named(answer, words):
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(verdict(EXERCISE, answer))


def test_an_unwritten_class_is_not_attempted():
    class Unwritten(Net):
        def forward(self, x):
            raise NotImplementedError

    class Empty(nn.Module):
        def __init__(self, width, depth):
            raise NotImplementedError

    for answer in (Unwritten, Empty):
        with pytest.raises(NotImplementedError):
            verdict(EXERCISE, answer)
