"""Every door to the outside world, chosen by settings."""

import platform
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from dependency_injector import containers, providers

from domain.pipelines.dialing import DialRules, Place
from domain.pipelines.spec import DEFAULT_CONNECTION
from domain.ports.cache import ICache
from domain.ports.data_store import IDataStore, ISource
from domain.ports.message_queue import IMessageQueue
from domain.ports.runtime import IClock
from domain.ports.secrets import Secret
from domain.stores.connection import ConnectionSpec
from entrypoints.composition.benches import checking_bench, checking_hooks, running_bench, running_hooks
from entrypoints.composition.paths import Paths
from entrypoints.composition.whereabouts import Whereabouts
from infrastructure.bench.bench import Bench
from infrastructure.bench.in_process import Calls
from infrastructure.caches.memory import InMemoryCache
from infrastructure.caches.redis import RedisCache
from infrastructure.dialing import Dialer, resolved
from infrastructure.metadata.records import SqlRecords, sqlite_url
from infrastructure.queues.kafka import KafkaAddress, KafkaMessageQueue
from infrastructure.queues.memory import InMemoryMessageQueue
from infrastructure.queues.redis_streams import RedisStreamsMessageQueue
from infrastructure.redis_client import RedisAddress
from infrastructure.scoping import ContextScopes
from infrastructure.secrets.environment import EnvironmentSecretProvider
from infrastructure.secrets.files import FileSecretProvider
from infrastructure.settings.reference import is_setting_name
from infrastructure.settings.rules import records_sign_in, store_sign_in
from infrastructure.settings.tree import Settings
from infrastructure.stores.duckdb.file import DuckDBOptions
from infrastructure.stores.duckdb.store import DuckDBDataStore
from infrastructure.stores.files.parquet_pages import FileLimits
from infrastructure.stores.files.store import FilesSource
from infrastructure.stores.memory.store import InMemoryDataStore
from infrastructure.stores.postgres.connection import PostgresAddress
from infrastructure.stores.postgres.store import PostgresDataStore
from infrastructure.transforms.bench import BenchTransformer, StepPlanner
from infrastructure.transforms.duckdb import DuckDBTransformer


def embedded_options(settings: Settings, paths: Paths) -> DuckDBOptions:
    """The settings' own DuckDB file."""
    chosen = settings.store.duckdb
    return DuckDBOptions(
        chosen.path or paths.data, chosen.memory_limit, chosen.threads, paths.scratch, chosen.spill_limit
    )


def database_address(settings: Settings) -> PostgresAddress:
    """The Postgres of DB_*."""
    return PostgresAddress(**vars(store_sign_in(settings)), trusted_schemas=settings.store.trusted_schemas)


def redis_address(settings: Settings) -> RedisAddress:
    """The Redis of REDIS_*."""
    redis = settings.redis
    return RedisAddress(
        host=redis.host or "",
        port=redis.port,
        db=redis.db,
        password=Secret(redis.password.get_secret_value()) if redis.password else None,
        ssl=redis.ssl,
        timeout_seconds=settings.queue.timeout_seconds,
    )


def redis_cache(settings: Settings) -> RedisCache:
    """The cache on the Redis of REDIS_*."""
    chosen = settings.cache
    return RedisCache(
        redis_address(settings),
        read_seconds=chosen.read_timeout_ms / 1000,
        write_seconds=chosen.write_timeout_ms / 1000,
    )


def kafka_address(settings: Settings) -> KafkaAddress:
    """The brokers of KAFKA_BOOTSTRAP_SERVERS."""
    return KafkaAddress(
        bootstrap_servers=settings.kafka.bootstrap_servers or "",
        timeout_seconds=max(settings.queue.timeout_seconds, 5.0),
        session_timeout_seconds=settings.queue.redelivery_seconds / 3,
    )


def records_url(settings: Settings, paths: Paths) -> str:
    """Where the platform's records are."""
    if settings.metadata.kind == "sqlite":
        return sqlite_url(paths.records)
    return records_sign_in(settings).url()


def installation(settings: Settings, paths: Paths) -> str:
    """What tells the records that count fences from others, without a secret."""
    if settings.metadata.kind == "sqlite":
        return f"{platform.node()}:{paths.records.absolute()}"
    url = urlsplit(records_url(settings, paths))
    return f"{url.hostname}:{url.port}{url.path}"


def store_of_settings(settings: Settings) -> ConnectionSpec:
    """The store of the settings, as if a document named it."""
    options = {"trusted_schemas": settings.store.trusted_schemas}
    return ConnectionSpec(DEFAULT_CONNECTION, settings.store.kind, options)


def dial_rules(settings: Settings) -> DialRules:
    """What the connections of documents may dial; one organization has the installation for itself by now."""
    records = None
    if settings.metadata.kind == "postgres":
        signs_in = records_sign_in(settings)
        # Without a host, or with a folder as one, drivers go through a socket of this machine.
        host = "127.0.0.1" if not signs_in.host or "/" in signs_in.host else signs_in.host
        records = Place(host, signs_in.port, signs_in.database)
    return DialRules(is_shared=False, allowed=settings.connections.allow_networks, records=records)


def postgres_connection(
    spec: ConnectionSpec, secrets: Mapping[str, Secret], paths: Paths, settings: Settings, dialer: Dialer, bench: Calls
) -> PostgresDataStore:
    """A named Postgres."""
    options = spec.options
    certificate = options.get("ssl_ca_cert")
    return PostgresDataStore(
        PostgresAddress(
            host=options["host"],
            port=options["port"],
            database=options["database"],
            user=options["user"],
            password=secrets.get("password"),
            sslmode=options["sslmode"],
            ssl_ca_cert=str(paths.confinement.place(certificate)) if certificate else None,
            connect_timeout_seconds=options["connect_timeout_seconds"],
            require_auth=options.get("require_auth"),
            trusted_schemas=tuple(options.get("trusted_schemas") or ()),
            dialer=dialer,
        ),
        installation(settings, paths),
        bench,
    )


def duckdb_connection(
    spec: ConnectionSpec, secrets: Mapping[str, Secret], paths: Paths, settings: Settings, bench: Calls
) -> DuckDBDataStore:
    """A named DuckDB file."""
    chosen = settings.store.duckdb
    path = paths.confinement.place(spec.options["path"])
    return DuckDBDataStore(
        DuckDBOptions(
            path, chosen.memory_limit, chosen.threads, paths.scratch, chosen.spill_limit, confinement=paths.confinement
        ),
        bench,
    )


def files_connection(
    spec: ConnectionSpec, secrets: Mapping[str, Secret], paths: Paths, settings: Settings, bench: Calls
) -> FilesSource:
    """A folder of files."""
    chosen = settings.limits
    limits = FileLimits(chosen.page_bytes, chosen.file_ratio, chosen.footer_bytes)
    return FilesSource(paths.confinement.place(spec.options["root"]), paths.confinement, limits, bench)


def memory_connection(spec: ConnectionSpec, secrets: Mapping[str, Secret]) -> InMemoryDataStore:
    """A named store in memory."""
    return InMemoryDataStore()


class ConnectionStores:
    """Builds the store of a named connection by its kind."""

    def __init__(self, by_kind: Callable[..., ISource]) -> None:
        self._by_kind = by_kind

    def __call__(self, organization: str, spec: ConnectionSpec, secrets: Mapping[str, Secret]) -> ISource:
        del organization  # One data root serves the one organization there is by now.
        return self._by_kind(spec.kind, spec=spec, secrets=secrets)


class Gateways(containers.DeclarativeContainer):
    """Adapters. A `Selector` chooses by setting; nothing here does I/O before the lifecycle opens it."""

    settings = providers.Dependency(instance_of=Settings)
    paths = providers.Dependency(instance_of=Paths)
    scopes = providers.Singleton(ContextScopes)
    clock: providers.Dependency[IClock] = providers.Dependency(instance_of=IClock)  # type: ignore[type-abstract]

    bench = providers.Singleton(checking_bench, settings)
    parsing = providers.Singleton(Bench.within, bench, settings.provided.checks.parse_seconds)
    data_store: providers.Selector[IDataStore] = providers.Selector(
        settings.provided.store.kind,
        duckdb=providers.Singleton(
            DuckDBDataStore, options=providers.Callable(embedded_options, settings, paths), bench=parsing
        ),
        memory=providers.Singleton(InMemoryDataStore),
        postgres=providers.Singleton(
            PostgresDataStore,
            address=providers.Callable(database_address, settings),
            installation=providers.Callable(installation, settings, paths),
            bench=parsing,
        ),
    )
    dialing = providers.Singleton(dial_rules, settings)
    default_store = providers.Singleton(store_of_settings, settings)
    places = providers.Singleton(Whereabouts, settings=settings, paths=paths)
    resolver = providers.Object(resolved)
    connection_store: providers.FactoryAggregate[Any] = providers.FactoryAggregate(
        postgres=providers.Factory(
            postgres_connection,
            paths=paths,
            settings=settings,
            dialer=providers.Singleton(Dialer, rules=dialing, resolve=resolver),
            bench=parsing,
        ),
        duckdb=providers.Factory(duckdb_connection, paths=paths, settings=settings, bench=parsing),
        files=providers.Factory(files_connection, paths=paths, settings=settings, bench=parsing),
        memory=providers.Factory(memory_connection),
    )
    connection_stores = providers.Singleton(ConnectionStores, by_kind=connection_store.provider)
    cache: providers.Selector[ICache] = providers.Selector(
        settings.provided.cache.kind,
        memory=providers.Singleton(InMemoryCache, clock=clock),
        redis=providers.Singleton(redis_cache, settings),
    )
    queue: providers.Selector[IMessageQueue] = providers.Selector(
        settings.provided.queue.kind,
        memory=providers.Singleton(InMemoryMessageQueue, max_depth=settings.provided.queue.max_depth),
        redis=providers.Singleton(
            RedisStreamsMessageQueue,
            address=providers.Callable(redis_address, settings),
            partitions=settings.provided.queue.partitions,
            max_depth=settings.provided.queue.max_depth,
            redelivery_seconds=settings.provided.queue.redelivery_seconds,
        ),
        kafka=providers.Singleton(
            KafkaMessageQueue,
            address=providers.Callable(kafka_address, settings),
            partitions=settings.provided.queue.partitions,
            topic_prefix=settings.provided.kafka.topic_prefix,
        ),
    )
    records = providers.Singleton(
        SqlRecords,
        url=providers.Callable(records_url, settings, paths),
        pool_size=settings.provided.database.pool_size,
        max_overflow=settings.provided.database.max_overflow,
        timeout_seconds=settings.provided.database.pool_timeout_seconds,
        upgrade_on_open=settings.provided.metadata.upgrade_on_open,
        admit=scopes.provided.refuse_beyond,
    )
    unit_of_work = providers.Callable(ContextScopes.unit_of_work, scopes, records.provided.unit)
    secrets = providers.List(
        providers.Singleton(
            EnvironmentSecretProvider,
            prefix=settings.provided.secrets.environment_prefix,
            names=settings.provided.secrets.environment_names,
            is_setting=providers.Object(is_setting_name),
        ),
        providers.Singleton(FileSecretProvider, root=paths.provided.secrets),
    )
    running_bench = providers.Singleton(running_bench, settings)
    hooks = providers.Singleton(running_hooks, settings, paths.provided.python)
    checking_hooks = providers.Singleton(checking_hooks, settings, paths.provided.python)
    own_transformer = providers.Factory(
        DuckDBTransformer,
        memory_limit=settings.provided.store.duckdb.memory_limit,
        threads=settings.provided.store.duckdb.threads,
    )
    planner = providers.Singleton(StepPlanner, bench=bench)
    checking_transformer = providers.Singleton(
        BenchTransformer,
        inner=providers.Callable(own_transformer, hooks=checking_hooks),
        planner=planner,
        bench=bench,
        hooks=checking_hooks,
        threads=1,
    )
    running_transformer = providers.Singleton(
        BenchTransformer,
        inner=providers.Callable(own_transformer, hooks=hooks),
        planner=planner,
        bench=running_bench,
        hooks=hooks,
        threads=settings.provided.store.duckdb.threads,
        keeps_own=True,
    )
