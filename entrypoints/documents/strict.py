"""What every model of a document is."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Model(BaseModel):
    """Strict, closed, and silent about values."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


def _whole(value: Any) -> Any:
    if type(value) is not int:  # True and 1.0 are equal to 1.
        raise ValueError("the version of a document is the number 1")
    return value


Version = Annotated[Literal[1], BeforeValidator(_whole)]
"""The version of the form of a document."""


def known_keys(model: type[BaseModel], location: Sequence[str | int]) -> str:
    """Name the keys that a place in a document may have; nothing where several models could stand there."""
    models = [model]
    for part in location:
        fields = [field for each in models for name, field in each.model_fields.items() if part in (name, field.alias)]
        if fields:
            models = [found for field in fields for found in _models(field.annotation)]
        elif named := [each for each in models if each.__name__ == part]:  # A branch of a union.
            models = named
    return ", ".join(f.alias or name for name, f in models[0].model_fields.items()) if len(models) == 1 else ""


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type such as `list[Rule] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
