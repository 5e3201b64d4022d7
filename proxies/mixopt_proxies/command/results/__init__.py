"""Losses from a trainer's logs: JSON, CSV, TensorBoard, W&B and MLflow files in one form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt_proxies.command.results.logged_values import (
        LoggedPoint as LoggedPoint,
        LoggedValues as LoggedValues,
    )
    from mixopt_proxies.command.results.result_files import (
        find_result as find_result,
        read_result as read_result,
    )
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "logged_values": ["LoggedPoint", "LoggedValues"],
            "result_files": ["find_result", "read_result"],
        },
    )
