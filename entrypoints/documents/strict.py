"""What every model of a document is."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Strict, closed, and silent about values."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)
