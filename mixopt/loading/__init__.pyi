from .chat_tokens import ChatTokens as ChatTokens
from .collate import Batch as Batch, stack_samples as stack_samples
from .dataset import MixtureDataset as MixtureDataset
from .fetching import InThread as InThread
from .loader import MixtureLoader as MixtureLoader
from .mixture_stream import UNKNOWN_SIZE as UNKNOWN_SIZE, MixtureStream as MixtureStream
from .packed_documents import PackedDocuments as PackedDocuments
from .packing import cut as cut
from .packing_plan import PackingSummary as PackingSummary
from .realised import Realised as Realised
from .row_format import FormedRows as FormedRows
from .row_sources import HasLengths as HasLengths
from .stream_places import join_stream_states as join_stream_states
from .stream_rows import DomainRows as DomainRows
