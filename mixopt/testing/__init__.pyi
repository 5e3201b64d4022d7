from ._convex_limits import check_convex_limit as check_convex_limit
from ._estimators import check_estimator as check_estimator
from ._executors import check_executor as check_executor
from ._exporters import check_exporter as check_exporter
from ._proxies import check_proxy as check_proxy
from ._regressors import check_regressor as check_regressor
from ._tiny_corpus import tiny_corpus as tiny_corpus
