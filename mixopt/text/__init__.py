"""From documents to token shards: read, extract, deduplicate, hold out, tokenize."""
