"""The command line: parse, call the library, print the answer and the next step.

A file for each kind of command; `mixopt.cli.main` puts them together. Everything but typer is
imported by the command that needs it, so that `--help` is quick.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
