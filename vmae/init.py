"""Initial weights: drawn once, as published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

#: The functions that draw the initial weights of PyTorch's layers.
_DEFAULTS = (nn.init.kaiming_uniform_, nn.init.uniform_)


class skip_init(TorchFunctionMode):
    """A context in which layers and models are built without initial weights, for others to replace.

    Drawing those of PyTorch's layers first would double the time to build a model: they are left
    uninitialised. The draws of the models here give zeros, since `trunc_normal_` redraws until all
    values are within its bounds.
    """

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DEFAULTS:
            return args[0] if args else kwargs["tensor"]
        if function in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0].zero_()
        return function(*args, **kwargs)


def init_linears(
    module: nn.Module, draw: Callable[[torch.Tensor], Any] = nn.init.xavier_uniform_
) -> None:
    """Draw the weights of every linear layer inside `module`, in place; biases become zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            draw(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
