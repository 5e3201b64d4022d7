from .document_stream import DocumentStream as DocumentStream
from .documents import (
    BadDocuments as BadDocuments,
    Document as Document,
    content_digest as content_digest,
)
from .domain_text import (
    DomainText as DomainText,
    read_domain as read_domain,
    read_target as read_target,
)
from .environment import DOMAIN_BYTES as DOMAIN_BYTES, Environment as Environment
from .file_sizes import FileSize as FileSize
from .held_out_split import HeldOutSplit as HeldOutSplit
from .published_sizes import published_size as published_size
from .reader_input import Reading as Reading
from .sources import check_files as check_files, is_local as is_local, text_files as text_files
from .spool import DIGEST as DIGEST, Spool as Spool, Spooled as Spooled
from .text_file import TextFile as TextFile
