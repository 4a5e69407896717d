"""Where a page of a list begins, and how long it is."""

from typing import Annotated

from fastapi import Query

from entrypoints.http.dependencies import Digits

Limit = Annotated[int, Query(ge=1, le=500), Digits]
# Not checked by the framework, whose answer would be 422: a cursor is ours, or the request is malformed.
Cursor = Annotated[str | None, Query(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,600}$"})]
