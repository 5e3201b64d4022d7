"""Losses from a trainer's logs: JSON, CSV, TensorBoard, W&B and MLflow files in one form."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
