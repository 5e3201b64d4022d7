"""The base of what files of ours must look like: no unknown field, no number that is not finite."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, lt=1 << 62)]


class FileShape(BaseModel):
    """Plain values of a file of ours, for `checked_as`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
