"""The API's socket: where it listens, to whom it answers, and what a connection may cost."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from infrastructure.settings.parts import Int, Section, listed, setting

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[?[0-9A-Fa-f:.]{2,45}\]?")


def _host(value: Any) -> Any:
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ValueError("must be a name or an address without a port; *.example.com is each name below it")
    return value


Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(listed)]


class HttpSettings(Section):
    """The API's socket."""

    host: str = setting(
        "127.0.0.1",
        "Address to bind; anything but loopback is reachable by others and needs HEADRACE_HTTP__ALLOW_REMOTE.",
    )
    port: Annotated[Int, Field(ge=0, le=65535)] = setting(8080, "Port to bind; 0 takes a free one.")
    allow_remote: bool = setting(
        False, "Others than this machine may connect: said by whoever binds to their addresses."
    )
    allowed_hosts: Hosts = setting(
        (),
        "Names and addresses under which this server is asked, as the header Host has them, such as "
        "headrace.example.com or *.example.com; loopback's always are. Others are answered 400; the probes answer "
        "all.",
    )
    max_body_bytes: Annotated[Int, Field(ge=1024, le=1_073_741_824)] = setting(
        10 * 1024 * 1024, "Largest request body (body.too_large)."
    )
    max_header_bytes: Annotated[Int, Field(ge=1024, le=1_048_576)] = setting(
        32 * 1024, "Bytes of a request before its body: its line and its headers (431)."
    )
    max_headers: Annotated[Int, Field(ge=10, le=1000)] = setting(100, "Headers of a request (431).")
    max_connections: Annotated[Int, Field(ge=8, le=100_000)] = setting(
        512,
        "Connections at a time; one more takes the place of that which has asked for nothing for longest, else it is "
        "answered 503. For probes there are 32 places more.",
    )
    max_requests: Annotated[Int, Field(ge=1, le=10_000)] = setting(
        32, "Requests that are worked on at a time, but for bodies and answers on their way; the others wait in a row."
    )
    request_wait_seconds: Annotated[float, Field(ge=0.1, le=600)] = setting(
        10.0, "How long a request may wait until it is worked on; then it is answered 503 (server.busy)."
    )
    header_timeout_seconds: Annotated[float, Field(ge=0.1, le=600)] = setting(
        10.0, "How long a request may take until its body begins; a byte now and then does not prolong it."
    )
    body_timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = setting(60.0, "How long a body may take.")
    answer_timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = setting(
        60.0, "How long a client may take none of an answer that waits for it."
    )
    keep_alive_seconds: Annotated[Int, Field(ge=1, le=600)] = setting(
        15, "How long a connection is kept on which nothing is asked."
    )
    grace_seconds: Annotated[Int, Field(ge=1, le=600)] = setting(25, "How long a shutdown may take.")
    ready_timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = setting(
        2.0, "How long readiness waits for each part."
    )
