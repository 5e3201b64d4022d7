"""Files, locks, plug-ins, progress, provenance and number formats; knows nothing of mixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.system.arrays import Array as Array, BoolArray as BoolArray, IntArray as IntArray
    from mixopt.system.files import (
        is_in_use as is_in_use,
        only_one as only_one,
        read_json as read_json,
        replacing as replacing,
        write_bytes as write_bytes,
        write_json as write_json,
        write_text as write_text,
    )
    from mixopt.system.number_text import (
        bytes_text as bytes_text,
        count_text as count_text,
        difference_text as difference_text,
        interval_text as interval_text,
        loss_text as loss_text,
        name_text as name_text,
        rank_text as rank_text,
        ratio_text as ratio_text,
        share_text as share_text,
        short_count as short_count,
    )
    from mixopt.system.plugins import (
        PluginKind as PluginKind,
        build_plugin as build_plugin,
        load_plugin as load_plugin,
        plugin_names as plugin_names,
    )
    from mixopt.system.progress_bars import (
        Say as Say,
        Update as Update,
        duration as duration,
        no_progress as no_progress,
        progress as progress,
        silent as silent,
    )
    from mixopt.system.provenance import (
        git_commit as git_commit,
        machine as machine,
        package_versions as package_versions,
        without_folders as without_folders,
    )
    from mixopt.system.version import __version__ as __version__
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "arrays": ["Array", "BoolArray", "IntArray"],
            "files": [
                "is_in_use",
                "only_one",
                "read_json",
                "replacing",
                "write_bytes",
                "write_json",
                "write_text",
            ],
            "number_text": [
                "bytes_text",
                "count_text",
                "difference_text",
                "interval_text",
                "loss_text",
                "name_text",
                "rank_text",
                "ratio_text",
                "share_text",
                "short_count",
            ],
            "plugins": ["PluginKind", "build_plugin", "load_plugin", "plugin_names"],
            "progress_bars": ["Say", "Update", "duration", "no_progress", "progress", "silent"],
            "provenance": ["git_commit", "machine", "package_versions", "without_folders"],
            "version": ["__version__"],
        },
    )
