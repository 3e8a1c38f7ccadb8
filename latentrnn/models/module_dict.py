"""Modules under names that users choose, whatever names torch has taken for itself."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView

from torch import nn

# Users' names are Python identifiers, which this is not part of, so that no name of theirs is taken.
APART = "head:"


class NamedModules(nn.ModuleDict):
    """A dict of modules by name, in which a head may be called `values`, `type`, `train` or `items`.

    torch refuses such names, since a submodule is an attribute and modules have attributes of these names. Here they
    are stored apart, as `head:values`; every other name is stored as it is, so that its parameters keep their names.

    Example:
        >>> NamedModules({"values": nn.Linear(1, 1), "spikes": nn.Linear(1, 1)}).state_dict().keys()
        odict_keys(['head:values.weight', 'head:values.bias', 'spikes.weight', 'spikes.bias'])
    """

    def __getitem__(self, name: str) -> nn.Module:
        return super().__getitem__(_stored(name))

    def __setitem__(self, name: str, module: nn.Module) -> None:
        super().__setitem__(_stored(name), module)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(_stored(name))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(_stored(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._named())

    def keys(self) -> KeysView[str]:
        """Return the names as they were given."""
        return self._named().keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Return names as they were given, with their modules."""
        return self._named().items()

    def values(self) -> ValuesView[nn.Module]:
        """Return the modules."""
        return self._named().values()

    def pop(self, name: str) -> nn.Module:
        """Take a module out."""
        module = self[name]
        del self[name]
        return module

    def _named(self) -> dict[str, nn.Module]:
        return {name.removeprefix(APART): part for name, part in super().items()}


def taken_by_torch(name: str) -> bool:
    """Return whether torch's dict of modules has an attribute of its own of this name, so that no module can."""
    return hasattr(_EMPTY, name)


def _stored(name: str) -> str:
    return APART + name if taken_by_torch(name) else name


_EMPTY = nn.ModuleDict()
