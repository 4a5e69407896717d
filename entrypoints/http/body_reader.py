"""Bodies of requests: no more of them than allowed is taken, and they are parsed off the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from application.catalog.documents import PutDocument
from domain.errors import Problem, SpecError
from entrypoints.documents.limits import DocumentLimits
from entrypoints.documents.reading import read_parsed, read_text
from entrypoints.documents.yaml_text import ParsedText, check_json_shape, parse_json
from entrypoints.http import bodies

_JSON = "application/json"
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
_THREADS = 2
_LARGE_AT_A_TIME = 4
_NODES_OF_A_SET = 10
"""How many times the keys and values of one document a set of documents may have."""

T = TypeVar("T")
B = TypeVar("B", bound=bodies.Body)


class BodyReader:
    """Reads bodies for routes, which ask who is calling before."""

    def __init__(self, limits: DocumentLimits, max_body_bytes: int) -> None:
        self._limits = limits
        self._of_sets = replace(
            limits,
            document_bytes=max_body_bytes,
            document_depth=limits.document_depth + 2,
            document_nodes=limits.document_nodes * _NODES_OF_A_SET,
        )
        # Parsing holds the interpreter in turns with the loop; more threads would only take more of the turns.
        self._threads = ThreadPoolExecutor(_THREADS, "bodies")
        self._large = asyncio.Semaphore(_LARGE_AT_A_TIME)

    async def json(self, request: Request, model: type[B]) -> B:
        """A JSON object of a call, parsed as strictly as a document; an empty body is an empty object.

        Raises:
            SpecError: it is not JSON, holds a key twice, is not an object, or not what the call takes.
        """
        content = await _Incoming(request).up_to(self._limits.document_bytes)
        if content is None:
            sentence = (
                f"A body of this call has at most {self._limits.document_bytes:,} bytes "
                "(HEADRACE_LIMITS__DOCUMENT_BYTES)."
            )
            raise HTTPException(413, sentence)
        if not content:
            return bodies.checked(model, {})
        _check_json(request)
        return await self._off_the_loop(lambda: bodies.checked(model, _object(content, self._limits)))

    async def document(self, request: Request, kind: str, name: str) -> PutDocument:
        """The document of a PUT, whose kind and name agree with the path.

        Raises:
            SpecError: with every problem.
        """
        media = _media_type(request)
        content = await _Incoming(request).up_to(self._limits.document_bytes)
        if content is None:
            raise SpecError([Problem("body", "spec.too_large", self._limits.too_large())])
        text = _text(content)

        def read() -> PutDocument:
            found = read_text(text, "body", {}, is_json=media == _JSON, limits=self._limits)
            if found.kind != kind or found.name != name:
                raise SpecError([Problem("body", "spec.name", f"The document is not the {kind} that the path names.")])
            return PutDocument(found.kind, found.name, found.body)

        return await self._off_the_loop(read)

    async def documents(self, request: Request) -> tuple[list[PutDocument], bool]:
        """The documents of a plan, and whether others are to be pruned.

        Raises:
            SpecError: with every problem of every document.
        """
        _check_json(request)
        incoming = _Incoming(request)
        content = await incoming.up_to(self._limits.document_bytes)
        if content is not None:
            return await self._off_the_loop(partial(self._set, content))
        async with self._large:
            content = await incoming.up_to(self._of_sets.document_bytes)
            if content is None:
                raise HTTPException(413, f"A body has at most {self._of_sets.document_bytes:,} bytes.")
            return await self._off_the_loop(partial(self._set, content))

    def _set(self, content: bytes) -> tuple[list[PutDocument], bool]:
        wanted = bodies.checked(bodies.PlanBody, _object(content, self._of_sets))
        found: list[PutDocument] = []
        problems: list[Problem] = []
        for index, body in enumerate(wanted.documents):
            place = f"documents.{index}"
            try:
                check_json_shape(bodies.as_text(body), place, self._limits)
                document = read_parsed(ParsedText(place, body), {}, self._limits)
            except SpecError as error:
                problems += error.problems
            else:
                found.append(PutDocument(document.kind, document.name, document.body))
        if problems:
            raise SpecError(problems)
        return found, wanted.prune

    async def _off_the_loop(self, action: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, action)


class _Incoming:
    """What has come of a body by now."""

    def __init__(self, request: Request) -> None:
        self._receive = request.receive
        self._taken = bytearray()
        self._is_whole = False

    async def up_to(self, most: int) -> bytes | None:
        """The body, or None as soon as it is longer; more may be asked for then."""
        while len(self._taken) <= most:
            if self._is_whole:
                return bytes(self._taken)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            self._taken += message.get("body", b"")
            self._is_whole = not message.get("more_body", False)
        return None


def _object(content: bytes, limits: DocumentLimits) -> dict[str, Any]:
    parsed = parse_json(_text(content), "body", limits)
    if not isinstance(parsed.value, dict):
        parsed.add((), "spec.yaml", "the body is a JSON object")
    if parsed.problems:
        raise SpecError(parsed.problems)
    value: dict[str, Any] = parsed.value
    return value


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HTTPException(400, "The body is not UTF-8.") from error


def _check_json(request: Request) -> None:
    if _media_type(request) != _JSON:
        raise HTTPException(415, "Send application/json.")


def _media_type(request: Request) -> str:
    """What the body is said to be; 415 for what is neither YAML nor JSON, or compressed."""
    encodings = request.headers.getlist("content-encoding")
    if len(encodings) > 1:
        raise HTTPException(400, "The header Content-Encoding came more than once.")
    if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
        raise HTTPException(415, "Compressed bodies are not taken.")
    kinds = request.headers.getlist("content-type")
    if len(kinds) > 1:
        raise HTTPException(400, "The header Content-Type came more than once.")
    kind = "".join(kinds).partition(";")[0].strip().lower()
    if kind != _JSON and kind not in _YAML:
        raise HTTPException(415, "Send application/yaml or application/json.")
    return kind
