"""The parameters of one module as a safetensors file whose name and content are checked against each other."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from latentrnn.models.component import floating_type

# of parameters, by the names that entries and files of safetensors have for them
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
LOOKED_AT = 2**16  # numbers at once
_STORED = {
    **{"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}


def write_weights(module: nn.Module, directory: Path, name: str) -> dict[str, Any]:
    """Write a module's state to `{name}-{hash}.safetensors` and return the entry by which `read_weights` finds it.

    The name carries the content's hash, so that a file never changes once it exists: a reader of an older entry is not
    disturbed by a newer one.

    Args:
        module: its `state_dict()` is written, on CPU.
        directory: an existing directory.
        name: "model" or "guide".

    Returns:
        `{"file", "sha256", "bytes", "dtype", "training"}`, ready for JSON.

    Raises:
        ValueError: a parameter is NaN or infinite; it would only be refused at load.
    """
    for path, parameter in module.named_parameters():
        _check_finite(f"{name} parameter {path!r}", parameter)
    # Cloned, because safetensors refuses tensors that share memory, as tied weights do.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    content = safetensors.torch.save(state)
    digest = hashlib.sha256(content).hexdigest()
    file = f"{name}-{digest[:12]}.safetensors"
    write_atomically(directory / file, content)
    return {
        "file": file,
        "sha256": digest,
        "bytes": len(content),
        "dtype": _name(_parameter_dtype(module)),
        "training": module.training,
    }


class Weights(NamedTuple):
    """A file of weights whose content is what its entry says, and what it holds.

    Attributes:
        path: the file.
        dtype: of the module's parameters.
        training: the module's mode.
        shapes, dtypes: of its tensors, by name, as the file's header tells them.
    """

    path: Path
    dtype: torch.dtype
    training: bool
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def open_weights(directory: Path, entry: dict[str, Any]) -> Weights:
    """Check the file that `write_weights` wrote, and return what it holds; no tensor is read.

    Args:
        directory: where the file is.
        entry: what `write_weights` returned.

    Raises:
        ValueError: the file is missing, truncated, changed or not safetensors.
    """
    path = directory / entry["file"]
    if not path.is_file():
        raise ValueError(f"{path}: the weights are missing; latentrnn.json names this file")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"{path}: truncated or replaced; expected {entry['bytes']} bytes, found {size}")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != entry["sha256"]:
        raise ValueError(
            f"{path}: damaged or replaced; expected SHA-256 {entry['sha256'][:12]}..., found {digest[:12]}..."
        )
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{path}: expected the name of a torch dtype; found {entry['dtype'][:80]!r}")
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
        dtypes = {name: _STORED[part.get_dtype()] for name, part in slices.items() if part.get_dtype() in _STORED}
    for name in shapes:
        if name not in dtypes:
            raise ValueError(f"{path}: tensor {name!r} is of a type that no module of this package has")
    return Weights(path, _DTYPES[entry["dtype"]], entry["training"], shapes, dtypes)


def read_weights(module: nn.Module, weights: Weights) -> None:
    """Load into `module` the file that `write_weights` wrote for it.

    Args:
        module: built from the saved configuration; its floating-point dtype is set to the saved one first.
        weights: what `open_weights` returned.

    Raises:
        ValueError: a tensor's name, shape or dtype is not the module's (the first one is named), or a parameter is NaN
            or infinite.
    """
    if _parameter_dtype(module) != weights.dtype:
        module.to(dtype=weights.dtype)
    later = {name: buffer for name, buffer in _added_later(module).items() if name not in weights.shapes}
    _check_match(weights, {name: value for name, value in module.state_dict().items() if name not in later})
    with _opened(weights.path) as file:
        tensors = later | {name: file.get_tensor(name) for name in weights.shapes}
        for name, _ in module.named_parameters(remove_duplicate=False):
            _check_finite(f"{weights.path}: tensor {name!r}", tensors[name])
        module.load_state_dict(tensors)
    module.train(weights.training)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment, a crash included, `path` holds all of the old or all of the new content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else the rename can reach the disk before the content does
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error


def _added_later(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that fits of earlier versions did not have yet, as `build` left them."""
    return {
        f"{path}.{name}" if path else name: part.get_buffer(name)
        for path, part in module.named_modules()
        for name in getattr(part, "added_later", ())
    }


def _check_match(weights: Weights, expected: dict[str, Tensor]) -> None:
    path, shapes, dtypes = weights.path, weights.shapes, weights.dtypes
    for name, tensor in expected.items():
        if name not in shapes:
            raise ValueError(f"{path}: tensor {name!r} is missing; the saved configuration describes it")
        if shapes[name] != tensor.shape:
            raise ValueError(f"{path}: tensor {name!r}: expected shape {tuple(tensor.shape)}, found {shapes[name]}")
        if dtypes[name] != tensor.dtype:
            raise ValueError(
                f"{path}: tensor {name!r}: expected dtype {_name(tensor.dtype)}, found {_name(dtypes[name])}"
            )
    for name in shapes:
        if name not in expected:
            raise ValueError(f"{path}: tensor {name!r} is not described by the saved configuration")


def _check_finite(name: str, tensor: Tensor) -> None:
    # some at a time: what the comparison makes on its way is several times as large as what it looks at
    bad = sum(int((~torch.isfinite(part)).sum()) for part in tensor.detach().flatten().split(LOOKED_AT))
    if bad:
        raise ValueError(f"{name}: expected finite numbers; {bad} of {tensor.numel()} are NaN or infinite")


def _parameter_dtype(module: nn.Module) -> torch.dtype:
    return floating_type(module, torch.get_default_dtype())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
