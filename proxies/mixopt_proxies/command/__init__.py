"""The user's own trainer as the proxy: a command run for each trial, whose losses are read.

Importing this loads no torch: the command brings its own environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_proxies.command.command_proxy import CommandProxy as CommandProxy
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "command_proxy": ["CommandProxy"],
        },
    )
