from .documents import BLOCK as BLOCK, has_documents as has_documents, pieces as pieces
from .finding import found_format as found_format, token_files as token_files
from .foreign import TYPES as TYPES, Foreign as Foreign, Stated as Stated
from .formats import FORMATS as FORMATS, read_foreign as read_foreign
