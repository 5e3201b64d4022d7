"""Documents become rows of one length: nothing lost, whole where they fit, ends known."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from mixopt.loading.packing import best_fit, best_fit_rows, packed_fields

DOCUMENTS = st.lists(st.lists(st.integers(1, 99), max_size=40), max_size=12)


@given(documents=DOCUMENTS, length=st.integers(1, 16))
@settings(max_examples=60, deadline=None)
def test_best_fit_keeps_documents_whole_that_are_no_longer_than_a_row(documents, length):
    packed = best_fit(documents, length)
    found = []
    for tokens, document in zip(packed.tokens_RL, packed.document_RL, strict=True):
        found += [tokens[document == k].tolist() for k in range(document.max() + 1)]
    pieces = [d[k : k + length] for d in documents for k in range(0, len(d), length)]
    assert sorted(found) == sorted(pieces)


def one_by_one(lengths, length):
    """Best fit, decreasing, as it is defined: tokens in each row, in the order of opening."""
    rows = []
    for size in sorted(lengths, reverse=True):
        fitting = [k for k, used in enumerate(rows) if used + size <= length]
        if fitting:
            rows[max(fitting, key=lambda k: rows[k])] += size
        else:
            rows.append(size)
    return rows


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n)))))
@settings(max_examples=200, deadline=None)
def test_rows_are_filled_as_best_fit_is_defined(case):
    length, lengths = case
    row = best_fit_rows(np.array(lengths, int), length)
    assert sorted(np.bincount(row, weights=lengths).tolist()) == sorted(one_by_one(lengths, length))


def test_fields_keep_the_documents_of_a_row_apart():
    fields = packed_fields(best_fit([[5, 6, 7], [8, 9], [4, 4, 4, 4]], 7, padding=0))
    row = {name: values[1].tolist() for name, values in fields.items()}
    assert fields["input_ids"][0].tolist() == [5, 6, 7, 4, 4, 4, 4]
    assert row["input_ids"] == [8, 9, 0, 0, 0, 0, 0]
    assert row["labels"] == [-100, 9, -100, -100, -100, -100, -100]
    assert row["position_ids"] == [0, 1, 0, 1, 2, 3, 4]  # padding is a part of its own
    assert row["document"] == [0, 0, -1, -1, -1, -1, -1]
    assert fields["labels"][0].tolist() == [-100, 6, 7, -100, 4, 4, 4]
    assert fields["position_ids"][0].tolist() == [0, 1, 2, 0, 1, 2, 3]
