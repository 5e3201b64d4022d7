"""Conformance tests for plug-ins, to call from the tests of a package that has one.

    from mixopt.testing import check_estimator, check_proxy, check_regressor

    def test_my_proxy_keeps_the_promises_of_a_proxy():
        check_proxy(MyProxy)

Each raises an `AssertionError` that says which promise was broken, and how.
"""

from mixopt.testing._estimators import check_estimator
from mixopt.testing._executors import check_executor
from mixopt.testing._exporters import check_exporter
from mixopt.testing._proxies import check_proxy, tiny_corpus
from mixopt.testing._regressors import check_regressor

__all__ = [
    "check_estimator",
    "check_executor",
    "check_exporter",
    "check_proxy",
    "check_regressor",
    "tiny_corpus",
]
