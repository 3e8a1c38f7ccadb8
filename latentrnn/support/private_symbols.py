"""What the package uses of torch and Pyro that is not public, each with the reason why nothing public will do.

Some private names cannot be here, since they are methods that a subclass overrides: `_load_from_state_dict` of
`nn.Module` (its public hooks run before the tensors of the module itself are resized, and cannot be inherited), its
`_apply` (through which `to`, `double` and the like all go, and which has no hook), and `_pyro_sample` and
`_pyro_post_sample` of `Messenger`, which Pyro documents as the way to write a handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, TypeVar

import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.utils._python_dispatch import (
    TorchDispatchMode as TorchDispatchMode,  # sees factories, too, unlike `overrides`
)
from torch.utils._pytree import tree_leaves as tree_leaves  # `torch.func` flattens trees and has no name for it

Function = TypeVar("Function", bound=Callable[..., Any])

# what `Tensor.item` is, seen as an operation: its public name is not dispatched
read_number = torch.ops.aten._local_scalar_dense.default

# one draw for any shape; `torch.distributions.Gamma` clamps draws, whose logarithms are wanted here
standard_gamma = torch._standard_gamma


# how often a tensor was written into, which nothing public tells; those made for inference do not count, and raise
version = attrgetter("_version")


def lerp_all_(values: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move tensors towards others in one kernel; a loop of `Tensor.lerp_` does the same in one kernel each."""
    torch._foreach_lerp_(list(values), list(ends), weight)


def within_transform(*values: Tensor) -> bool:
    """Whether `torch.func` looks at any of the values. Nothing public tells."""
    return any(torch._C._functorch.is_functorch_wrapped_tensor(value) for value in values)


def transforms_active() -> bool:
    """Whether `torch.func` or forward-mode differentiation is under way. Nothing public tells.

    Its `vmap`, `jacrev` and `jvp` need a rule of their own, which a hand-written backward does not give.
    """
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def modes_active() -> bool:
    """Whether modes look at every operation or function of torch's. Nothing public tells."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._len_torch_function_stack() > 0


def never_traced(function: Function) -> Function:
    """Mark a function that `torch.compile` leaves alone: the graph breaks at its call, and nothing in it is traced.

    As `torch.compiler.disable`, which is public, but imports the whole compiler, as long as all of torch takes, and
    puts a frame around every call.
    """
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    tracer: Any = torch._C._dynamo.eval_frame
    skip = tracer._FrameExecStrategy(tracer._FrameAction.SKIP, tracer._FrameAction.SKIP)  # itself, and what it calls
    tracer.set_code_exec_strategy(function.__code__, skip)  # type: ignore[attr-defined]
    return function


def hooked(module: nn.Module) -> bool:
    """Whether anything is to be called besides the modules within one. There are methods to add hooks, none to ask."""
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    within = any(getattr(part, kind) for part in module.modules() for kind in kinds)
    return within or torch.nn.modules.module._has_any_global_hook()


def gradient_hooked(tensor: Tensor) -> bool:
    """Whether something is called with a tensor's gradient. There is a method to add hooks, none to ask."""
    return bool(tensor._backward_hooks)


def handlers() -> list[Any]:
    """Pyro's handlers that are on, innermost last. `pyro.poutine` tells whether there are any, not which."""
    return list(_PYRO_STACK)


def operation_schema(operation: Any) -> Any:
    """Name and arguments of an operator. `torch.ops` prints them and does not return them."""
    return operation._schema


def children(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """A module's parts by name. `named_children` leaves out the second name of a part that has two."""
    return module._modules


def replace_child(module: nn.Module, name: str, child: nn.Module) -> None:
    """Give a shallow copy of a module another part. `setattr` would give it to the original as well."""
    module._modules = {**module._modules, name: child}


def replace_tensor(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a shallow copy of a module another tensor, which need not be a leaf. `setattr` would change the original."""
    if name in module._parameters:
        module._parameters = {own: tensor for own, tensor in module._parameters.items() if own != name}
    module._buffers = {**module._buffers, name: value}
