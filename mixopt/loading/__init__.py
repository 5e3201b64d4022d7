"""What lies behind datasets and loaders: sources of rows, packing, prefetching, import."""
