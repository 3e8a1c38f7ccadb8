"""The command line: what a shell asks of the package, in the words of its Python functions."""

from latentrnn.cli.perform import perform as perform
