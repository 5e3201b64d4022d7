"""The version of this distribution, which whatever is written carries."""

__version__ = "0.1.0"
