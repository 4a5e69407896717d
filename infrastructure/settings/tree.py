"""One frozen tree of settings in sections; `sources.py` fills it and knows where each value came from."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from domain.loads.read_set import BATCH_BYTES
from domain.stores.kinds import DefaultKindName
from infrastructure.environment_names import check_listed, check_prefix
from infrastructure.settings.http import HttpSettings
from infrastructure.settings.limits import LimitSettings
from infrastructure.settings.parts import (
    Folders,
    Int,
    LogLevel,
    Lower,
    Networks,
    Port,
    Schemas,
    Section,
    SslMode,
    listed,
    setting,
)
from infrastructure.settings.telemetry import TelemetrySettings

_SERVERS = r"^[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5}(,[A-Za-z0-9.\-\[\]:]+:[0-9]{1,5})*$"


class AppSettings(Section):
    """The installation as a whole."""

    environment: Annotated[Literal["development", "testing", "staging", "production"], Lower] = setting(
        "development", "Where this runs; production refuses debug, low sampling and known secrets.", env="ENVIRONMENT"
    )
    debug: bool = setting(False, "More detail in logs; refused in production.", env="DEBUG")
    name: str = setting("headrace", "The name in logs and in the API's title.", env="APP_NAME")
    api_version: str = setting("v1", "The version shown by the API.", env="API_VERSION")
    organization: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")] = setting(
        "default", "The slug of the embedded organization; destinations know it by this name."
    )


_SIZE = r"^[0-9]+(\.[0-9]+)?(MB|GB|MiB|GiB)$"


class DuckDBSettings(Section):
    """The embedded store."""

    path: Path | None = setting(None, "The DuckDB file; by default data.duckdb in the home.")
    memory_limit: Annotated[str, Field(pattern=_SIZE)] = setting(
        "1GB", "Memory DuckDB may use before it spills to the scratch folder."
    )
    spill_limit: Annotated[str, Field(pattern=_SIZE)] = setting(
        "10GB",
        "What each DuckDB file may have in the scratch folder at a time; a query that needs more fails (store.memory).",
    )
    threads: Annotated[Int, Field(ge=1, le=256)] = setting(2, "Threads of the embedded engine.")


class StoreSettings(Section):
    """The store named `default`."""

    kind: DefaultKindName = setting("duckdb", "The store that `connection: default` means.")
    duckdb: DuckDBSettings = DuckDBSettings()
    trusted_schemas: Schemas = setting(
        (),
        "Schemas of the Postgres of DB_* whose functions, operators and types queries may use beside Postgres' own, "
        "such as those of its extensions.",
    )


class MetadataSettings(Section):
    """The platform's own records."""

    kind: Literal["sqlite", "postgres"] = setting("sqlite", "Where Headrace keeps specs, runs and keys.")
    url: SecretStr | None = setting(
        None, "A Postgres URL for the records alone, instead of DB_* and the settings below; ?sslmode=… may follow."
    )
    host: str | None = setting(None, "Host of the Postgres of the records; by default that of DB_*.")
    port: Port | None = setting(None, "Port; by default that of DB_*, or 5432 beside a host of its own.")
    name: str | None = setting(None, "Database of the records; by default that of DB_*.")
    user: str | None = setting(None, "Role of the records, which owns the schema headrace; by default that of DB_*.")
    password: SecretStr | None = setting(None, "Password of that role.")
    sslmode: SslMode | None = setting(None, "TLS to a host of its own; by default as for DB_*, or prefer.")
    ssl_ca_cert: Path | None = setting(None, "Certificates that vouch for that host: with verify-ca and verify-full.")
    upgrade_on_open: bool = setting(True, "Bring the records' schema up to date at start.")


class CacheSettings(Section):
    """The cache in front of online values."""

    kind: Literal["memory", "redis"] = setting(
        "memory", "The cache from which a later version answers features; until then only the health looks at it."
    )
    read_timeout_ms: Annotated[Int, Field(ge=1, le=10_000)] = setting(
        20, "How long Redis may take to answer a lookup, in milliseconds; after that the store is asked."
    )
    write_timeout_ms: Annotated[Int, Field(ge=10, le=10_000)] = setting(
        200, "How long it may take to take what was published."
    )


class QueueSettings(Section):
    """The doorbell between API and worker."""

    kind: Literal["memory", "redis", "kafka"] = setting(
        "memory", "The queue; `memory` rings within one process, as in headrace up."
    )
    partitions: Annotated[Int, Field(ge=1, le=256)] = setting(
        16, "Partitions that organizations are spread over; they take turns."
    )
    max_depth: Annotated[Int, Field(ge=100, le=100_000_000)] = setting(
        100_000, "Messages that may wait (memory, redis); more are refused and rung again later."
    )
    redelivery_seconds: Annotated[float, Field(ge=1, le=3600)] = setting(
        30.0, "How long a message stays with a consumer that died (redis), or a session lasts (kafka, a third of it)."
    )
    timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = setting(2.0, "How long the broker may take to answer.")


class DatabaseSettings(Section):
    """One Postgres, for store.kind=postgres and metadata.kind=postgres."""

    host: str | None = setting(None, "Host of the Postgres.", env="DB_HOST")
    port: Port = setting(5432, "Port of the Postgres.", env="DB_PORT")
    name: str | None = setting(None, "Database.", env="DB_NAME")
    user: str | None = setting(None, "User.", env="DB_USER")
    password: SecretStr | None = setting(None, "Password.", env="DB_PASSWORD")
    sslmode: SslMode | None = setting(None, "TLS to the Postgres; prefer when not set.")
    ssl_ca_cert: Path | None = setting(None, "Certificates that vouch for it: with verify-ca and verify-full.")
    pool_size: Annotated[Int, Field(ge=1, le=1000)] = setting(
        5, "Connections kept for the records.", env="DB_POOL_SIZE"
    )
    max_overflow: Annotated[Int, Field(ge=0, le=1000)] = setting(
        10, "Connections beyond those, when busy.", env="DB_MAX_OVERFLOW"
    )
    pool_timeout_seconds: Annotated[float, Field(ge=0.1, le=300)] = setting(
        10.0, "How long a request waits for a connection before it is answered 503."
    )


class SnowflakeSettings(Section):
    """Snowflake, from the step that brings its store."""

    account: str | None = setting(None, "Account.", env="SNOWFLAKE_ACCOUNT", later=6)
    user: str | None = setting(None, "User.", env="SNOWFLAKE_USER", later=6)
    password: SecretStr | None = setting(None, "Password.", env="SNOWFLAKE_PASSWORD", later=6)
    warehouse: str | None = setting(None, "Warehouse.", env="SNOWFLAKE_WAREHOUSE", later=6)
    database: str | None = setting(None, "Database.", env="SNOWFLAKE_DATABASE", later=6)
    schema_name: str | None = setting(None, "Schema.", env="SNOWFLAKE_SCHEMA", later=6)
    role: str | None = setting(None, "Role.", env="SNOWFLAKE_ROLE", later=6)
    private_key_file: Path | None = setting(None, "Key file.", env="SNOWFLAKE_PRIVATE_KEY_FILE", later=6)


class RedisSettings(Section):
    """Redis, for queue.kind=redis and cache.kind=redis."""

    host: str | None = setting(None, "Host.", env="REDIS_HOST")
    port: Port = setting(6379, "Port.", env="REDIS_PORT")
    password: SecretStr | None = setting(None, "Password.", env="REDIS_PASSWORD")
    db: Annotated[Int, Field(ge=0, le=15)] = setting(0, "Database number.", env="REDIS_DB")
    ssl: bool = setting(False, "Connect with TLS.", env="REDIS_SSL")


class KafkaSettings(Section):
    """A broker that speaks Kafka's protocol, for queue.kind=kafka."""

    bootstrap_servers: Annotated[str, Field(pattern=_SERVERS)] | None = setting(
        None, "The brokers, as host:port,host:port.", env="KAFKA_BOOTSTRAP_SERVERS"
    )
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,100}$")] = setting(
        "headrace.", "What the names of topics and consumer groups start with."
    )


class RunSettings(Section):
    """Defaults of runs."""

    batch_size: Annotated[Int, Field(ge=1, le=10_000_000)] | None = setting(
        None,
        "Rows per batch where a pipeline says nothing; when not set, what suits the destination: 122,880 on DuckDB, "
        "50,000 elsewhere.",
        env="BATCH_SIZE",
    )
    max_batch_size: Annotated[Int, Field(ge=1, le=10_000_000)] = setting(
        1_000_000, "The most rows per batch that a pipeline may ask for.", env="MAX_BATCH_SIZE"
    )
    batch_bytes: Annotated[Int, Field(ge=65_536, le=1_073_741_824)] = setting(
        BATCH_BYTES, "Bytes per batch where a pipeline says nothing; a row that is larger fails its run."
    )
    max_retries: Annotated[Int, Field(ge=0, le=100)] = setting(
        3, "Further attempts after a retryable failure, where a pipeline says nothing.", env="MAX_RETRIES"
    )
    query_timeout_seconds: Annotated[Int, Field(ge=1, le=604_800)] = setting(
        900, "The longest a source may take to plan a read or to give its next rows; then the run fails."
    )
    timeout_seconds: Annotated[Int, Field(ge=1, le=604_800)] = setting(
        3600, "Longest duration of an attempt at a run, where a pipeline says nothing.", env="TIMEOUT_SECONDS"
    )
    warehouse: str | None = setting(None, "Snowflake warehouse of runs.", env="WAREHOUSE", later=6)
    lease_seconds: Annotated[Int, Field(ge=1, le=3600)] = setting(30, "How long a worker holds a run without renewing.")
    tick_seconds: Annotated[float, Field(ge=0.05, le=60)] = setting(
        1.0, "How often lost rings and expired leases are looked for."
    )
    concurrency: Annotated[Int, Field(ge=1, le=256)] = setting(4, "Runs at a time in one process.")
    parallelism: Annotated[Int, Field(ge=1, le=64)] = setting(
        4, "Streams of a partitioned run at a time, where a pipeline says nothing."
    )
    max_parallelism: Annotated[Int, Field(ge=1, le=64)] = setting(
        16, "The most streams of a run at a time, whatever its pipeline says."
    )
    batches_bytes: Annotated[Int, Field(ge=65_536, le=68_719_476_736)] = setting(
        1024**3,
        "Bytes that the batches of a run's streams may have together, of which about three times as many are in "
        "memory: of streams with larger batches fewer run at a time, and a pipeline may not ask for a batch above it "
        "(spec.batch_bytes).",
    )


class TransformSettings(Section):
    """The steps and rules of pipelines."""

    memory_mb: Annotated[Int, Field(ge=200, le=1_048_576)] = setting(
        1024,
        "Memory that the steps and rules of one stream of a run may take for a batch, where they may make more of a "
        "row than it was; a run whose steps need more fails (transform.too_large).",
    )

    python_allowed: Annotated[tuple[str, ...], BeforeValidator(listed)] | None = setting(
        None, "Names of Python steps that may run; without it, all that are installed and those of the project."
    )


class CheckSettings(Section):
    """The child processes in which queries and documents are parsed, planned, previewed and tested."""

    memory_mb: Annotated[Int, Field(ge=200, le=65_536)] = setting(
        400, "Memory that one may take; what needs more is refused (query.too_large)."
    )
    seconds: Annotated[float, Field(ge=0.1, le=300)] = setting(
        10.0,
        "How long checking a document, planning it, or one batch of its preview, may take; then it is refused "
        "(query.too_large).",
    )
    answer_mb: Annotated[Int, Field(ge=1, le=1024)] = setting(
        16, "The most that the rows of a preview may have together, and that one may answer."
    )
    parse_seconds: Annotated[float, Field(ge=0.1, le=60)] = setting(
        1.0, "How long the processor may work on understanding one query, step or rule; then it is refused."
    )
    children: Annotated[Int, Field(ge=1, le=64)] = setting(2, "How many there are at most; the first is kept ready.")
    queue: Annotated[Int, Field(ge=0, le=1000)] = setting(
        32, "How many queries may wait for one; more are answered 503 (worker.busy)."
    )
    preview_seconds: Annotated[float, Field(ge=0.1, le=3600)] = setting(
        30.0,
        "How long a preview may take, looking at the stores of one pipeline of a plan, and one answer of the source "
        "of a dry run; then it is ended (query.timeout).",
    )
    previews: Annotated[Int, Field(ge=1, le=1000)] = setting(
        8,
        "How many previews may read their sources at a time, three quarters of them of one caller, and a quarter dry "
        "runs, one of a caller; more wait for a while or are answered 503 (worker.busy).",
    )


class WorkerSettings(Section):
    """Processes that execute runs."""

    drain_file: Path | None = setting(
        None, "While this file is there, the process drains and stops (spot notices); by default drain in the home."
    )
    host: str = setting(
        "127.0.0.1",
        "Address of the probes of headrace worker; anything but loopback needs HEADRACE_HTTP__ALLOW_REMOTE.",
    )
    port: Annotated[Int, Field(ge=0, le=65535)] | None = setting(
        None, "Port of the probes of headrace worker; none are served without one."
    )


class FlagSettings(Section):
    """Switches of the user's documents."""

    enable_caching: bool = setting(True, "Answer features from the cache.", env="ENABLE_CACHING", later=5)
    enable_rate_limiting: bool = setting(True, "Limit requests.", env="ENABLE_RATE_LIMITING", later=4)


class HealthSettings(Section):
    """What is looked at to know whether work can be taken."""

    interval_seconds: Annotated[float, Field(gt=0, le=3600)] = setting(
        30.0, "How often the parts are looked at for `GET /health`, which asks nobody."
    )
    least_free_mb: Annotated[Int, Field(ge=0)] = setting(
        256, "Free megabytes on the disks of the home and of what is spilled, without which no work is taken."
    )


class MetricsSettings(Section):
    """What `GET /metrics` shows of what nobody tells by itself."""

    interval_seconds: Annotated[float, Field(gt=0, le=3600)] = setting(
        15.0, "How often the queue, the freshness of destinations, connections and health are looked at for it."
    )


class LogSettings(Section):
    """Log lines on stderr."""

    format: Literal["auto", "console", "json"] = setting("auto", "`auto` is console in development and JSON elsewhere.")
    level: Annotated[LogLevel, Lower] = setting(
        "info", "Lowest level shown.", env=("HEADRACE_LOGS__LEVEL", "OTEL_LOG_LEVEL")
    )


class SecretSettings(Section):
    """Confinement of secret references."""

    file_root: Path | None = setting(None, "The folder of `file:` references; by default secrets in the project.")
    environment_prefix: Annotated[str, AfterValidator(check_prefix)] = setting(
        "SECRET_", "What the names of `env:` references start with; never nothing, and never HEADRACE_."
    )
    environment_names: Annotated[tuple[Annotated[str, AfterValidator(check_listed)], ...], BeforeValidator(listed)] = (
        setting(
            (),
            "Further names that `env:` references may use, such as SHOP_PASSWORD; none of settings, AWS_*, PG* and "
            "the like.",
        )
    )


class ConnectionSettings(Section):
    """What connections may reach."""

    allow_networks: Networks = setting(
        (),
        "The loopback and private networks that connections may dial, such as 10.0.0.0/8; when none are named and one "
        "organization has the installation for itself, all of them.",
    )


class Settings(BaseSettings):
    """The whole tree. Build it with `load_settings`; its own sources are switched off."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app: AppSettings = AppSettings()
    home: Path | None = setting(None, "Where the embedded files live; by default .headrace in the project.")
    data_root: Path | None = setting(
        None, "The folder with a folder for each organization, once there are several; refused until then.", later=10
    )
    data_roots: Folders = setting(
        (),
        "The folders, of the project or absolute, that paths of connections stay in; by default data in the project.",
    )
    store: StoreSettings = StoreSettings()
    metadata: MetadataSettings = MetadataSettings()
    cache: CacheSettings = CacheSettings()
    queue: QueueSettings = QueueSettings()
    database: DatabaseSettings = DatabaseSettings()
    snowflake: SnowflakeSettings = SnowflakeSettings()
    redis: RedisSettings = RedisSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    kafka: KafkaSettings = KafkaSettings()
    run: RunSettings = RunSettings()
    transforms: TransformSettings = TransformSettings()
    checks: CheckSettings = CheckSettings()
    worker: WorkerSettings = WorkerSettings()
    flags: FlagSettings = FlagSettings()
    http: HttpSettings = HttpSettings()
    health: HealthSettings = HealthSettings()
    metrics: MetricsSettings = MetricsSettings()
    logs: LogSettings = LogSettings()
    secrets: SecretSettings = SecretSettings()
    connections: ConnectionSettings = ConnectionSettings()
    limits: LimitSettings = LimitSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing but what the loader gives."""
        return (init_settings,)
