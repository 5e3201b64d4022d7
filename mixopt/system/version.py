"""The version of this distribution, written to all outputs."""

__version__ = "0.1.0"
