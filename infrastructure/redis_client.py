"""Where a Redis is, and a client of it: the same for queue and cache."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from domain.errors import MissingExtraError
from domain.ports.secrets import Secret

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis is, and how long to wait for it."""

    host: str
    port: int = 6379
    db: int = 0
    password: Secret | None = None
    ssl: bool = False
    timeout_seconds: float = 2.0


def redis_client(address: RedisAddress, purpose: str, *, timeout_seconds: float, retries: int) -> "Redis":
    """A client that connects once it is asked; an answer that does not come in time closes its connection.

    Raises:
        MissingExtraError: the driver is not installed, which `purpose` needs.
    """
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import ConstantBackoff
    except ModuleNotFoundError as error:
        raise MissingExtraError("redis", purpose) from error
    return Redis(
        host=address.host,
        port=address.port,
        db=address.db,
        password=address.password.reveal() if address.password is not None else None,
        ssl=address.ssl,
        protocol=2,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=address.timeout_seconds,
        retry=Retry(ConstantBackoff(0.05), retries),  # The driver's own default tries ten times.
    )


def redis_errors() -> tuple[type[Exception], ...]:
    """Errors that mean trouble with a Redis."""
    try:
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        return (OSError,)
    return (RedisError, OSError)
