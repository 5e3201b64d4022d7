from .corpus_input import (
    batches_of as batches_of,
    corpus_path as corpus_path,
    open_for as open_for,
    prepare_for as prepare_for,
    prepared_folder as prepared_folder,
)
from .held_out_text import HeldOutText as HeldOutText
from .stream_input import HELD_OUT as HELD_OUT, StreamedText as StreamedText
