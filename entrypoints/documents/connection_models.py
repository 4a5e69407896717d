"""Strict models of connection documents."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from domain.pipelines.local_path import PathAstrayError, leads_astray
from domain.stores.kinds import DUCKDB, FILES, KINDS, MEMORY, POSTGRES, StoreKindName
from domain.stores.table import ReservedNameError, is_reserved_schema
from entrypoints.documents.models import Name, identifier
from entrypoints.documents.strict import Model, Version

_SECRET_REFERENCE = re.compile(r"(env|file):[^\x00\r\n]{1,300}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]{2,45}\]?")


class PostgresOptions(Model):
    """A Postgres database."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] = 5432
    database: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    user: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ssl_ca_cert: str | None = None
    require_auth: Literal["scram-sha-256"] | None = None
    connect_timeout_seconds: Annotated[int, Field(ge=1, le=300, strict=True)] = 10
    batch_size: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = None
    trusted_schemas: Annotated[list[str], Field(max_length=20)] | None = None

    _identifiers = field_validator("database", "user")(identifier)
    _inside = field_validator("ssl_ca_cert")(lambda value: value if value is None else _relative(value))

    @field_validator("host")
    @classmethod
    def _host(cls, value: str) -> str:
        if not _HOST.fullmatch(value):
            raise ValueError("a host is a name or an address, without port or path")
        return value

    @field_validator("trusted_schemas")
    @classmethod
    def _schemas(cls, value: list[str] | None) -> list[str] | None:
        for name in value or ():
            if is_reserved_schema(identifier(name)):
                raise ReservedNameError(f"the schema {name} belongs to Headrace or the database")
        return value

    @model_validator(mode="after")
    def _dependent(self) -> "PostgresOptions":
        if self.sslmode in ("verify-ca", "verify-full") and not self.ssl_ca_cert:
            raise ValueError(f"sslmode {self.sslmode} needs ssl_ca_cert")
        if self.ssl_ca_cert and self.sslmode not in ("verify-ca", "verify-full"):
            raise ValueError("ssl_ca_cert is used with sslmode verify-ca or verify-full only")
        return self


class DuckDBOptions(Model):
    """A DuckDB file, relative to the project."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=1000)]

    _inside = field_validator("path")(lambda value: _relative(value))


class FilesOptions(Model):
    """A folder of files, relative to the project."""

    root: Annotated[str, StringConstraints(min_length=1, max_length=1000)]

    _inside = field_validator("root")(lambda value: _relative(value))


class MemoryOptions(Model):
    """Nothing to choose."""


def _relative(value: str) -> str:
    if leads_astray(value):
        raise PathAstrayError(
            "a path is relative to the project, stays inside it, and has no name that begins with a dot"
        )
    return value


OPTIONS: dict[str, type[Model]] = {
    POSTGRES.name: PostgresOptions,
    DUCKDB.name: DuckDBOptions,
    FILES.name: FilesOptions,
    MEMORY.name: MemoryOptions,
}


class ConnectionDocument(Model):
    """`connection: NAME`. `options` depend on `kind`."""

    version: Version
    connection: Name
    kind: StoreKindName
    options: dict[str, Any] | None = None
    secrets: dict[Literal["password"], str] | None = None

    @field_validator("connection")
    @classmethod
    def _not_default(cls, value: str) -> str:
        if value == "default":
            raise ValueError("default is the store of the settings; choose another name")
        return value

    @field_validator("secrets")
    @classmethod
    def _references(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for reference in (value or {}).values():
            if not _SECRET_REFERENCE.fullmatch(reference):
                raise ValueError("a secret is a reference: env:NAME or file:NAME, never the secret itself")
        return value

    @model_validator(mode="after")
    def _secrets_of_kind(self) -> "ConnectionDocument":
        if self.secrets and not KINDS[self.kind].secrets:
            raise ValueError(f"a {self.kind} connection takes no secrets")
        return self
