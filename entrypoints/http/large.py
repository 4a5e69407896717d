"""Answers that may be large: made and written in a thread, so that the loop goes on turning meanwhile."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.responses import Response

from entrypoints.answers.sizes import written, written_list


async def large(build: Callable[[], Mapping[str, Any] | Sequence[Any]]) -> Response:
    """Answer with what is built; its route says in OpenAPI what that is."""

    def content() -> bytes:
        body = build()
        return written(body) if isinstance(body, Mapping) else written_list(body)

    return Response(await asyncio.to_thread(content), media_type="application/json")
