"""Token files of other tools: find the files of a source, and read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.corpus.foreign.documents import (
        BLOCK as BLOCK,
        has_documents as has_documents,
        pieces as pieces,
    )
    from mixopt.corpus.foreign.finding import (
        found_format as found_format,
        token_files as token_files,
    )
    from mixopt.corpus.foreign.foreign import TYPES as TYPES, Foreign as Foreign, Stated as Stated
    from mixopt.corpus.foreign.formats import FORMATS as FORMATS, read_foreign as read_foreign
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "documents": ["BLOCK", "has_documents", "pieces"],
            "foreign": ["Foreign", "Stated", "TYPES"],
            "formats": ["FORMATS", "read_foreign"],
            "finding": ["found_format", "token_files"],
        },
    )
