"""Conformance tests for plug-ins, to call from the tests of a plug-in package.

    from mixopt.testing import check_estimator, check_proxy, check_regressor

    def test_my_proxy_keeps_the_promises_of_a_proxy():
        check_proxy(MyProxy)

Each raises an `AssertionError` that names the broken promise and the observed behaviour.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
