"""The same results with less memory, or faster: activation checkpointing and compilation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from vmae.layers import Block


@contextmanager
def checkpointed(model: torch.nn.Module, wanted: bool = True) -> Iterator[None]:
    """Inside, blocks keep only their input and compute everything else again in the backward pass.

    The results are identical; parameter names and the model's code do not change.
    """
    blocks = [m for m in model.modules() if isinstance(m, Block)] if wanted else []
    compiled = [block._compiled_call_impl for block in blocks]
    for block, call in zip(blocks, compiled, strict=True):
        again = partial(checkpoint, call or block.forward, use_reentrant=False)
        setattr(block, "_compiled_call_impl" if call else "forward", again)
    try:
        yield
    finally:
        for block, call in zip(blocks, compiled, strict=True):
            if call:
                block._compiled_call_impl = call
            else:
                del block.forward


def compile_blocks(model: torch.nn.Module, *inputs: Any) -> None:
    """Compile every block in place and try it on a batch; if that fails, warn and run without it.

    Parameter names do not change. Blocks of the same shape share compiled code. DropPath draws other
    random numbers in compiled blocks.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        block.compile(dynamic=False)  # every step has the same shapes
    try:
        model(*inputs).float().sum().backward()
    except Exception as error:  # compilers fail in many ways
        torch._dynamo.reset()
        for block in blocks:
            block._compiled_call_impl = None
        reason = " ".join(str(error).split("\n")[:2]) or type(error).__name__
        warnings.warn(
            f"torch.compile failed ({reason}): training will continue without compilation. "
            "torch.compile requires a C++ compiler and, on a GPU, Triton",
            stacklevel=2,
        )
    finally:
        model.zero_grad()
