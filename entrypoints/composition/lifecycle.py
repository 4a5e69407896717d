"""Opens the selected parts in written order and closes them in reverse, whatever happens between."""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from application.connections.open_stores import DEFAULT_SPEC
from application.operations.health import LifeState
from domain.identity.scope import Scope
from entrypoints.composition.container import Container
from entrypoints.composition.paths import Paths
from entrypoints.use_cases import UseCases


@asynccontextmanager
async def running(container: Container, *, with_store: bool) -> AsyncIterator[UseCases]:
    """Open the system and hand out its use cases.

    `with_store` opens the default store at once, so that a store that cannot be opened is told before any work; other
    stores open when they are first used.
    """
    paths: Paths = container.paths()
    paths.create_home()
    gateways = container.gateways
    use_cases: UseCases = container.use_cases.everything()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(use_cases.telemetry.close)
        await use_cases.telemetry.open()  # First, and closed last: it says how long all else took.
        stack.push_async_callback(gateways.bench().close)
        stack.push_async_callback(gateways.running_bench().close)
        records, stores = gateways.records(), container.use_cases.stores()
        for part in (records, gateways.cache(), gateways.queue()):
            stack.push_async_callback(part.close)
            await part.open()
        stack.push_async_callback(stores.close)
        async with records.unit(Scope(use_cases.organization)) as unit:
            await unit.identity.ensure_organization(use_cases.organization)
            await unit.commit()
        if with_store:
            await stores.get(use_cases.organization, DEFAULT_SPEC)
        use_cases.life.started()
        try:
            yield use_cases
        finally:
            use_cases.life.begin_shutdown()
            await use_cases.doorbell.settle()
    use_cases.life.state = LifeState.STOPPED


@asynccontextmanager
async def unopened(container: Container) -> AsyncIterator[UseCases]:
    """Hand out the use cases for what needs no store, record or home."""
    use_cases: UseCases = container.use_cases.everything()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(container.gateways.bench().close)
        stack.push_async_callback(container.gateways.running_bench().close)
        yield use_cases


async def ensure_admin_key(use_cases: UseCases, paths: Paths) -> str:
    """Return the embedded administrator's key, creating it on the first start in a file only its owner can read."""
    try:
        return paths.admin_key.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        key = await use_cases.authenticator.create_administrator(use_cases.organization, "admin")
    try:
        descriptor = os.open(paths.admin_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # Another process of this home was faster; its key is the one that people read.
        return paths.admin_key.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key + "\n")
    return key
