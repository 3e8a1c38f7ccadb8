"""What `latentrnn --help` says, of every command, as a page: it is read from the parser, so that it is never behind."""

from __future__ import annotations

import argparse
import os
from typing import Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from latentrnn.cli.parser import parser

COLUMNS = "72"  # as wide as the site's column


class ShellHelp(SphinxDirective):
    """The help of a command, or of the whole where none is named."""

    optional_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        os.environ["COLUMNS"] = COLUMNS
        asked = parser()
        if self.arguments:
            commands = next(action for action in asked._actions if isinstance(action, argparse._SubParsersAction))
            asked = commands.choices[self.arguments[0]]
        said = asked.format_help()
        return [nodes.literal_block(said, said, language="text")]


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("shell-help", ShellHelp)
    return {"parallel_read_safe": True}
