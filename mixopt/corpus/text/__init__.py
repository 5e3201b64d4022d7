"""Read documents from files, hubs and installed packages; extract, deduplicate and hold out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mixopt.system.lazy_names import lazy_names

if TYPE_CHECKING:
    from mixopt.corpus.text.document_stream import DocumentStream as DocumentStream
    from mixopt.corpus.text.documents import (
        BadDocuments as BadDocuments,
        Document as Document,
        content_digest as content_digest,
    )
    from mixopt.corpus.text.domain_text import (
        DomainText as DomainText,
        read_domain as read_domain,
        read_target as read_target,
    )
    from mixopt.corpus.text.environment import (
        DOMAIN_BYTES as DOMAIN_BYTES,
        Environment as Environment,
    )
    from mixopt.corpus.text.file_sizes import FileSize as FileSize
    from mixopt.corpus.text.held_out_split import HeldOutSplit as HeldOutSplit
    from mixopt.corpus.text.published_sizes import published_size as published_size
    from mixopt.corpus.text.reader_input import Reading as Reading
    from mixopt.corpus.text.sources import (
        check_files as check_files,
        is_local as is_local,
        text_files as text_files,
    )
    from mixopt.corpus.text.spool import DIGEST as DIGEST, Spool as Spool, Spooled as Spooled
    from mixopt.corpus.text.text_file import TextFile as TextFile
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "document_stream": ["DocumentStream"],
            "documents": ["BadDocuments", "Document", "content_digest"],
            "domain_text": ["DomainText", "read_domain", "read_target"],
            "environment": ["DOMAIN_BYTES", "Environment"],
            "file_sizes": ["FileSize"],
            "held_out_split": ["HeldOutSplit"],
            "published_sizes": ["published_size"],
            "reader_input": ["Reading"],
            "sources": ["check_files", "is_local", "text_files"],
            "spool": ["DIGEST", "Spool", "Spooled"],
            "text_file": ["TextFile"],
        },
    )
