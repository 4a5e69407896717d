"""What sections of settings are made of: their base, how one is declared, and the types of their values."""

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from domain.stores.table import check_identifier, is_reserved_schema


def _ascii_digits(value: Any) -> Any:
    """Pydantic takes `5_432`, and Python any Unicode digit; a setting takes neither."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{1,18}", value):
        raise ValueError("must be a whole number in ASCII digits")
    return value


def _network(value: Any) -> Any:
    """Check one network in CIDR form."""
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError("must be a network such as 10.0.0.0/8") from error
    return value


def listed(value: Any) -> Any:
    """Take a text for the items that its commas part."""
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _schema(value: Any) -> Any:
    """Take the name of a schema that is a user's."""
    if isinstance(value, str):
        check_identifier(value)
        if is_reserved_schema(value):
            raise ValueError("names a schema that belongs to Headrace or the database")
    return value


Int = Annotated[int, BeforeValidator(_ascii_digits)]
Port = Annotated[Int, Field(ge=1, le=65535)]
Networks = Annotated[tuple[Annotated[str, BeforeValidator(_network)], ...], BeforeValidator(listed)]
Folders = Annotated[tuple[str, ...], BeforeValidator(listed)]
Schemas = Annotated[tuple[Annotated[str, BeforeValidator(_schema)], ...], BeforeValidator(listed)]
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
LogLevel = Literal["debug", "info", "warning", "error"]
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def setting(default: Any, description: str, *, env: str | tuple[str, ...] = (), later: int | None = None) -> Any:
    """Declare a setting: its meaning, its names in the user's documents, and the step from which it acts."""
    names: list[Any] = [env] if isinstance(env, str) else list(env)
    return Field(default, description=description, json_schema_extra={"env": names, "later": later})


class Section(BaseModel):
    """A frozen group of settings; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
