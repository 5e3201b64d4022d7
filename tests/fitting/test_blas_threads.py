"""Fits of few trials use one thread of BLAS, and leave it as it was."""

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 - has a BLAS of its own
from made_fit import fitted
from odd_regressors import SeesThreads, blas_threads
from threadpoolctl import threadpool_limits

from mixopt.system import one_blas_thread

NAME = "odd_regressors:SeesThreads"


@pytest.fixture(autouse=True)
def several():
    """BLAS may use two threads, as it does where nothing is set."""
    SeesThreads.seen.clear()
    with threadpool_limits(2, user_api="blas"):
        if set(blas_threads()) != {2}:
            pytest.skip("this BLAS has one thread")
        yield


def test_matrices_of_many_rows_have_all_threads_and_others_after_an_error():
    with one_blas_thread(1_000):
        assert set(blas_threads()) == {2}
    with pytest.raises(ZeroDivisionError), one_blas_thread(100):
        raise ZeroDivisionError
    assert set(blas_threads()) == {2}


def test_a_fit_of_few_trials_its_refits_and_the_searches_of_a_proposal_use_one_thread():
    fit = fitted(NAME)
    fit.resampled([0, 1], count=2, rng=np.random.default_rng(0))
    assert len(SeesThreads.seen) > 10
    assert set(SeesThreads.seen) == {1}
    assert set(blas_threads()) == {2}
    SeesThreads.seen.clear()
    fit.propose(target="code")
    assert SeesThreads.seen.count(1) > 5 * SeesThreads.seen.count(2)  # but for single predictions
