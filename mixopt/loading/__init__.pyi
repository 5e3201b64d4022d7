from .dataset import (
    ADDED as ADDED,
    Batch as Batch,
    MixtureDataset as MixtureDataset,
    stack_samples as stack_samples,
)
from .documents import ChatTokens as ChatTokens
from .loader import MixtureLoader as MixtureLoader
from .mixture_stream import MixtureStream as MixtureStream
from .packed_documents import PackedDocuments as PackedDocuments
from .packing import NO_LOSS as NO_LOSS, positions_in as positions_in
from .simulated_epochs import Pool as Pool, make_pools as make_pools
