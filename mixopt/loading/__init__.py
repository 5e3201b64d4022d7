"""From the order of samples to batches: datasets, loaders, packing, streams, read-ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.loading.chat_tokens import (
        ChatTokens as ChatTokens,
    )
    from mixopt.loading.collate import (
        Batch as Batch,
        stack_samples as stack_samples,
    )
    from mixopt.loading.dataset import (
        MixtureDataset as MixtureDataset,
    )
    from mixopt.loading.loader import (
        MixtureLoader as MixtureLoader,
    )
    from mixopt.loading.mixture_stream import (
        UNKNOWN_SIZE as UNKNOWN_SIZE,
        MixtureStream as MixtureStream,
    )
    from mixopt.loading.packed_documents import (
        PackedDocuments as PackedDocuments,
    )
    from mixopt.loading.packing import (
        cut as cut,
    )
    from mixopt.loading.packing_plan import (
        PackingSummary as PackingSummary,
    )
    from mixopt.loading.prefetch import (
        InThread as InThread,
    )
    from mixopt.loading.realised import (
        Realised as Realised,
    )
    from mixopt.loading.row_format import (
        FormedRows as FormedRows,
    )
    from mixopt.loading.row_sources import (
        HasLengths as HasLengths,
    )
    from mixopt.loading.stream_places import (
        join_stream_states as join_stream_states,
    )
    from mixopt.loading.stream_rows import DomainRows as DomainRows
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "chat_tokens": ["ChatTokens"],
            "collate": ["Batch", "stack_samples"],
            "dataset": ["MixtureDataset"],
            "loader": ["MixtureLoader"],
            "mixture_stream": ["MixtureStream", "UNKNOWN_SIZE"],
            "packed_documents": ["PackedDocuments"],
            "packing": ["cut"],
            "packing_plan": ["PackingSummary"],
            "prefetch": ["InThread"],
            "realised": ["Realised"],
            "row_format": ["FormedRows"],
            "row_sources": ["HasLengths"],
            "stream_places": ["join_stream_states"],
            "stream_rows": ["DomainRows"],
        },
    )
