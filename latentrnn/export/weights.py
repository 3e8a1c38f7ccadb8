"""The parameters of one module as a safetensors file whose name and content are checked against each other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn


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


def read_weights(module: nn.Module, directory: Path, entry: dict[str, Any]) -> None:
    """Load into `module` the file that `write_weights` wrote for it.

    Args:
        module: built from the saved configuration; its floating-point dtype is set to the saved one first.
        directory: where the file is.
        entry: what `write_weights` returned.

    Raises:
        ValueError: the file is missing, truncated, changed or not safetensors, or a tensor's name, shape or dtype is
            not the module's (the first one is named), or a parameter is NaN or infinite.
    """
    path = directory / entry["file"]
    tensors = _read(path, entry)
    _fill_in(module, tensors)
    dtype = getattr(torch, entry["dtype"], None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{path}: expected the name of a torch dtype; found {entry['dtype']!r}")
    if _parameter_dtype(module) != dtype:
        module.to(dtype=dtype)
    _check_match(path, module.state_dict(), tensors)
    for name, _ in module.named_parameters(remove_duplicate=False):
        _check_finite(f"{path}: tensor {name!r}", tensors[name])
    module.load_state_dict(tensors)
    module.train(bool(entry["training"]))


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


def _read(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path}: the weights are missing; latentrnn.json names this file")
    content = path.read_bytes()
    if len(content) != entry["bytes"]:
        raise ValueError(f"{path}: truncated or replaced; expected {entry['bytes']} bytes, found {len(content)}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != entry["sha256"]:
        raise ValueError(
            f"{path}: damaged or replaced; expected SHA-256 {entry['sha256'][:12]}..., found {digest[:12]}..."
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from error


def _fill_in(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Add the buffers that fits of earlier versions did not have yet, as `build` left them."""
    for path, part in module.named_modules():
        for name in getattr(part, "added_later", ()):
            full = f"{path}.{name}" if path else name
            tensors.setdefault(full, part.get_buffer(name))


def _check_match(path: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        if name not in found:
            raise ValueError(f"{path}: tensor {name!r} is missing; the saved configuration describes it")
        if found[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: tensor {name!r}: expected shape {tuple(tensor.shape)}, found {tuple(found[name].shape)}"
            )
        if found[name].dtype != tensor.dtype:
            raise ValueError(
                f"{path}: tensor {name!r}: expected dtype {_name(tensor.dtype)}, found {_name(found[name].dtype)}"
            )
    for name in found:
        if name not in expected:
            raise ValueError(f"{path}: tensor {name!r} is not described by the saved configuration")


def _check_finite(name: str, tensor: Tensor) -> None:
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ValueError(f"{name}: expected finite numbers; {bad} of {tensor.numel()} are NaN or infinite")


def _parameter_dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.get_default_dtype())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
