from .ngram_proxy import NgramProxy as NgramProxy
