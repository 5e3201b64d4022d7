"""Base class of our file formats: no unknown fields, no numbers that are not finite."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0, lt=1 << 62)]


class FileShape(BaseModel):
    """Content of one of our files, for `checked_as`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
