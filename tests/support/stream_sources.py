"""Sources of numbered documents for the tests of streams, of every kind that a user can give."""

import datasets

FIRST = {"web": 1000, "code": 2000, "books": 3000}
SIZES = {"web": 300, "code": 120, "books": 60}


def numbered(name, size=None):
    """Documents that say which they are, of different lengths."""
    first = FIRST[name]
    return [
        {"id": first + k, "text": f"{first + k} " * (k * 7 % 5 + 1)}
        for k in range(SIZES[name] if size is None else size)
    ]


class Resumable:
    """An iterable that says where it is, as `datasets` streams do."""

    def __init__(self, documents):
        self.documents, self.next = documents, 0

    def __iter__(self):
        start, self.next = self.next, 0
        for self.next in range(start + 1, len(self.documents) + 1):  # noqa: B020
            yield self.documents[self.next - 1]
        self.next = 0

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]


def hub(documents, shards=4):
    return datasets.Dataset.from_list(documents).to_iterable_dataset(num_shards=shards)


def mapped_tables(tables):
    return tables.map(lambda table: table, batched=True, batch_size=10).with_format(None)


KINDS = {
    "list": lambda documents: documents,
    "function": lambda documents: lambda: iter(documents),
    "resumable": lambda documents: lambda: Resumable(documents),
    "one shard": lambda documents: hub(documents, 1),
    "shards": lambda documents: hub(documents, 8),
    "mapped": lambda documents: hub(documents, 8).map(lambda row: {**row, "seen": True}),
    "mapped tables": lambda documents: mapped_tables(hub(documents, 8).with_format("arrow")),
    "shuffled": lambda documents: hub(documents, 8).shuffle(seed=5, buffer_size=20),
}


def tokens_of(document):
    return [*document["text"].encode(), 0]
