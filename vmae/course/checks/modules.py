"""Exercises whose answer is a module: constructed, given the reference's weights, trained for a step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from vmae.course.checks.core import Exercise

#: The arguments of the constructor by name, and those of `forward`.
ModuleCase = tuple[dict[str, Any], tuple[Any, ...]]


@dataclass
class Ran:
    """What a module with given weights did.

    output   of `forward`
    trained  of `forward` after one step of gradient descent on all parameters
    """

    output: Any
    gradients: dict[str, torch.Tensor]
    trained: Any


def module_exercise(
    name: str,
    reference: type[nn.Module],
    cases: Callable[[torch.Generator], Sequence[ModuleCase]],
    mistakes: Mapping[str, type[nn.Module]],
    draw: Callable[..., None] | None = None,
    renamed: Mapping[str, str] | None = None,
    tolerance: float = 1e-4,
    method: str = "forward",
    weights: Callable[[type[nn.Module], dict[str, Any]], dict[str, torch.Tensor]] | None = None,
    inspect: Callable[[Any], str | None] = lambda _: None,
) -> Exercise:
    """An exercise that asks for a module with the parameters of `reference`, by name and shape.

    cases    constructor's and forward's arguments; at least two, which differ in every size
    draw     shows (output, arguments, inputs) of the first case
    renamed  {what learners call a parameter, too: the name that the card asks for}
    method   what the learner writes and the cases call, if not `forward`
    weights  of (reference, constructor's arguments): those that the module gets; `weights_of` by default
    inspect  what is wrong with a class whose structure is right, before it is called, or None

    Wrong names, shapes and numbers of parameters are found first. Then the module gets the weights of
    a reference whose biases and norms are not those of a fresh one, and its output, its gradients and
    its output after a step of training are compared.
    """

    def show(result: Any, arguments: dict[str, Any], inputs: tuple[Any, ...]) -> None:
        assert draw is not None
        draw(result.output, arguments, inputs)

    structure = partial(_structure, reference, cases, renamed or {})
    return Exercise(
        name,
        reference,
        cases,
        mistakes,
        draw=show if draw else None,
        tolerance=tolerance,
        inspect=lambda answer: structure(answer) or inspect(answer),
        run=partial(_run, reference, method, weights or weights_of),
    )


def _structure(
    reference: type[nn.Module],
    cases: Callable[[torch.Generator], Sequence[ModuleCase]],
    renamed: Mapping[str, str],
    answer: Any,
) -> str | None:
    """How the parameters of a learner's class differ from the reference's, or None."""
    if isinstance(answer, nn.Module):
        return f"this is a module already: pass the class, `{type(answer).__name__}`, not an object"
    for arguments, _ in cases(torch.Generator().manual_seed(0)):
        expected = reference(**arguments)
        try:
            module = answer(**arguments)
        except AttributeError as error:
            if "before Module.__init__() call" in str(error):
                return "`super().__init__()` is missing: call it first in __init__"
            raise
        if not isinstance(module, nn.Module):
            return f"{answer.__name__} must be a subclass of nn.Module"
        made = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        problem = _names(module, expected, renamed) or _shapes(module, expected)
        if problem:
            return f"{problem} (made with {made})"
    return None


def _names(module: nn.Module, expected: nn.Module, renamed: Mapping[str, str]) -> str | None:
    """What differs in the names of the parameters and buffers that a checkpoint holds."""
    own, wanted = module.state_dict(), expected.state_dict()
    missing = [name for name in wanted if name not in own]
    extra = [name for name in own if name not in wanted]
    hidden = [
        name
        for name, value in vars(module).items()
        if isinstance(value, list | tuple) and any(isinstance(x, nn.Module) for x in value)
    ]
    if missing and hidden:
        return (
            f"PyTorch does not see the modules in the Python list `{hidden[0]}`, so nothing would train "
            "them: wrap the list in nn.ModuleList, or in nn.Sequential"
        )
    if missing and extra:
        return _replaced(extra, missing) or _renamed(
            extra[0].split("."), missing[0].split("."), renamed
        )
    if missing:
        parent, _, leaf = missing[0].rpartition(".")
        if leaf == "bias" and f"{parent}.weight" in own:
            return f"`{parent}` has no bias"
        tensor = getattr(module, parent or leaf, None)
        if isinstance(tensor, torch.Tensor):
            return (
                f"`{missing[0]}` is a plain tensor: make it an nn.Parameter, so that it is trained"
            )
        return (
            f"there is no `{missing[0]}`, of shape {tuple(wanted[missing[0]].shape)}: the card lists "
            "the names"
        )
    if extra:
        return f"`{extra[0]}` is not on the card: is it needed?"
    buffers, rightly = (dict(m.named_buffers()).keys() for m in (module, expected))
    fixed = (buffers & wanted.keys()) - rightly  # other buffers are the learner's own business
    return f"`{sorted(fixed)[0]}` is a buffer, and is not trained" if fixed else None


def _replaced(extra: list[str], missing: list[str]) -> str | None:
    """Which parts stand in for another number of parts: a new name would not help."""
    own, wanted = (
        list(dict.fromkeys(name.split(".")[0] for name in names)) for names in (extra, missing)
    )
    if len(own) == len(wanted) or set(own) & set(wanted):
        return None
    has, asked = (_listed([f"`{part}`" for part in parts]) for parts in (own, wanted))
    return f"{has} {'is' if len(own) == 1 else 'are'} not on the card: it has {asked} instead"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _renamed(own: list[str], wanted: list[str], renamed: Mapping[str, str]) -> str:
    """Which part of a dotted name must change."""
    if own[0] in renamed:
        own, wanted = own[:1], [renamed[own[0]]]
    same = 0
    while own[same] == wanted[same] and same + 1 < min(len(own), len(wanted)):
        same += 1
    names = [".".join(parts[: same + 1]) for parts in (own, wanted)]
    return f"`{names[0]}` must be called `{names[1]}`, so that checkpoints load"


def _shapes(module: nn.Module, expected: nn.Module) -> str | None:
    own = module.state_dict()
    for name, tensor in expected.state_dict().items():
        if own[name].shape != tensor.shape:
            return f"`{name}` has shape {tuple(own[name].shape)}; expected {tuple(tensor.shape)}"
    counts = [sum(p.numel() for p in m.parameters()) for m in (module, expected)]
    if counts[0] != counts[1]:  # a parameter that is shared
        return f"it has {counts[0]:,} parameters; expected {counts[1]:,}: is one shared?"
    return None


def _run(
    reference: type[nn.Module],
    method: str,
    weights: Callable[[type[nn.Module], dict[str, Any]], dict[str, torch.Tensor]],
    answer: type[nn.Module],
    arguments: dict[str, Any],
    inputs: tuple[Any, ...],
) -> Ran:
    """The module that `answer` makes, with given weights, and what it does with `inputs`."""
    module = answer(**arguments)
    module.load_state_dict(weights(reference, arguments))
    output = getattr(module, method)(*copy.deepcopy(inputs))
    torch.manual_seed(1)
    _scalar(output).backward()
    gradients = {
        f"the gradient of `{n}`": p.grad
        for n, p in module.named_parameters()
        if p.grad is not None  # not of what is fixed, nor of parts that `method` does not use
    }
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)
        trained = getattr(module, method)(*copy.deepcopy(inputs))
    return Ran(_detached(output), gradients, _detached(trained))


def weights_of(reference: type[nn.Module], arguments: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights of a reference; its biases, norms and positions are not zeros and ones as in a fresh one."""
    torch.manual_seed(0)
    module = reference(**arguments)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return module.state_dict()


def _scalar(output: Any) -> torch.Tensor:
    """A number on which every value of the output has its own effect, however many there are."""
    tensors = output if isinstance(output, tuple | list) else (output,)
    kept = [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad]
    parts = ((t * torch.randn(t.shape)).sum() / t.numel() ** 0.5 for t in kept)
    return sum(parts, torch.zeros(()).requires_grad_())


def _detached(output: Any) -> Any:
    if isinstance(output, tuple | list):
        return type(output)(_detached(x) for x in output)
    return output.detach() if isinstance(output, torch.Tensor) else output
