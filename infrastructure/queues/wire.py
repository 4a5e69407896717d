"""Messages as bytes, the same on every broker: JSON only, so that nothing a broker holds can run code (Q4)."""

import json
import zlib
from collections.abc import Mapping

from domain.errors import PlatformError, UnavailableError
from domain.ports.message_queue import Message


class UndecodableError(PlatformError):
    """A message that is not one of ours; it becomes a dead letter and never reaches a caller."""

    code = "queue.undecodable"


def encode(message: Message) -> bytes:
    """Write a message as UTF-8 JSON."""
    value = {"body": dict(message.body), "headers": dict(message.headers), "key": message.key}
    return json.dumps(value, separators=(",", ":")).encode()


def decode(content: bytes) -> Message:
    """Read what `encode` wrote.

    Raises:
        UndecodableError: it is something else.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UndecodableError("the message is not JSON") from error
    if not isinstance(value, dict) or not isinstance(value.get("body"), dict):
        raise UndecodableError("the message is not an object with a body")
    headers = value.get("headers")
    if not isinstance(headers, Mapping) or not all(isinstance(item, str) for item in headers.values()):
        raise UndecodableError("the message's headers are not texts")
    return Message(value["body"], dict(headers), str(value.get("key", "")))


def raw_message(content: bytes) -> Message:
    """Keep what could not be decoded, so that a person can look at it."""
    return Message({"raw": content[:10_000].decode("utf-8", "replace")})


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key: stable over processes and versions, as brokers outlive both."""
    return zlib.crc32(key.encode()) % partitions


def queue_unavailable(kind: str) -> UnavailableError:
    """The one sentence for a broker that cannot be reached."""
    return UnavailableError(f"The {kind} queue cannot be reached.", code="queue.unavailable")
