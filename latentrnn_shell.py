"""The command `latentrnn`.

The command line is read before the package is imported, whose users wait seconds for torch: help, completion and
mistakes in options come at once. So this module stands beside the package, and the parser, `latentrnn/cli/parser.py`,
imports nothing but the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def load_parser() -> Any:
    """Return the module of the parser, without the package around it."""
    package = find_spec("latentrnn")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "cli" / "parser.py"
    spec = spec_from_file_location("latentrnn_parser", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit code: 0 done, 1 a fit or run failed, 2 wrong use, 130 interrupted."""
    parser = load_parser()
    options = parser.parse(sys.argv[1:] if arguments is None else arguments)
    if options.command == "completion":
        return int(parser.completion(options.shell))
    try:
        from latentrnn.cli import perform
    except KeyboardInterrupt:  # while torch was imported
        return 130
    return perform(options)


if __name__ == "__main__":
    sys.exit(main())
