"""The commands, a file for each kind; `mixopt.cli` puts them together.

Everything but typer is imported by the command that needs it, so that `--help` is quick.
"""
