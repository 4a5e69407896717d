"""What the system does, built from the gateways."""

import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from importlib.metadata import version

from dependency_injector import containers, providers

from application.answers import AnswerLimits
from application.catalog.documents import Catalog
from application.catalog.forecast import PlanForecaster
from application.connections.open_stores import DEFAULT_SPEC, OpenStores
from application.connections.probe import ConnectionProbe
from application.events.announce import Announcer, log_event
from application.events.follow import FollowerStarter
from application.identity.access import Authenticator, KeyKeeper
from application.loads.landing import LandingPlanner
from application.loads.load import ReadSetLoader
from application.loads.patience import Patience
from application.loads.plan_read import ReadPlanner
from application.loads.stream import StreamRunner
from application.loads.work import PipelineWorks
from application.operations.health import HealthMonitor, Life
from application.operations.workers import WorkerRegistry
from application.pipelines.inspect import PipelineInspector
from application.pipelines.quarantine import QuarantineReviewer
from application.pipelines.rehearse import Rehearsal
from application.pipelines.spec_tests import SpecTester
from application.pipelines.turns import Turns
from application.runs.claim import RunClaimer
from application.runs.control import RunController
from application.runs.doorbell import Doorbell
from application.runs.execute import RunExecutor
from application.runs.here import RunsHere
from application.runs.launch import RunLauncher
from application.runs.settle import RunSettler
from application.runs.tend import RunTender
from domain.errors import PlatformError
from domain.ports.runtime import IIdentifiers, ITelemetry
from domain.ports.unit_of_work import WorkerRecord
from domain.stores.connection import failing_step
from entrypoints.use_cases import UseCases as AllUseCases
from infrastructure.engines.local import LocalEngine
from infrastructure.metadata.leases import this_process
from infrastructure.security.api_keys import ApiKeys
from infrastructure.security.query_guard import SqlQueryGuard
from infrastructure.settings.tree import Settings


def store_trouble(stores: OpenStores, organization: str) -> Callable[[], Awaitable[str | None]]:
    """Readiness of the default store: opened if it is not, and tried. Whoever asks has no key, so only the step is
    told.
    """

    async def check() -> str | None:
        try:
            store = await stores.get(organization, DEFAULT_SPEC)
        except PlatformError as error:
            return f"failed at {failing_step(error)} [{error.code}]; see: headrace connections test default"
        health = await store.health_check()
        return None if health.is_healthy else f"failed at {health.step}; see: headrace connections test default"

    return check


def own_process(identifiers: IIdentifiers, concurrency: int) -> WorkerRecord:
    """Describe this process for the registry."""
    return WorkerRecord(
        id=identifiers.new_id(),
        roles="",
        host=socket.gethostname(),
        process=this_process(),
        version=version("headrace"),
        concurrency=concurrency,
        running=0,
        state="",
    )


class UseCases(containers.DeclarativeContainer):
    """Use cases; all of them singletons without state of their own."""

    settings = providers.Dependency(instance_of=Settings)
    identifiers: providers.Dependency[IIdentifiers] = providers.Dependency()
    telemetry: providers.Dependency[ITelemetry] = providers.Dependency()
    gateways = providers.DependenciesContainer()

    lease = providers.Singleton(timedelta, seconds=settings.provided.run.lease_seconds)
    owner = providers.Singleton(this_process)
    life = providers.Singleton(Life)
    stores = providers.Singleton(
        OpenStores,
        records=gateways.records,
        default=gateways.data_store,
        build=gateways.connection_stores,
        secrets=gateways.secrets,
    )
    doorbell = providers.Singleton(Doorbell, records=gateways.records, queue=gateways.queue)
    follower_starter = providers.Singleton(FollowerStarter, identifiers=identifiers)
    announcer = providers.Singleton(
        Announcer,
        records=gateways.records,
        subscribers=providers.List(providers.Object(log_event)),
        reactions=providers.List(follower_starter),
        ring=doorbell.provided.ring,
        bound=follower_starter.provided.first,
    )
    patience = providers.Singleton(
        Patience, limit=providers.Singleton(timedelta, seconds=settings.provided.run.query_timeout_seconds)
    )
    reads = providers.Singleton(
        ReadPlanner,
        patience=patience,
        default_batch_rows=settings.provided.run.batch_size,
        max_batch_rows=settings.provided.run.max_batch_size,
        default_batch_bytes=settings.provided.run.batch_bytes,
        max_batch_bytes=settings.provided.run.batches_bytes,
        max_columns=settings.provided.limits.columns,
    )
    landings = providers.Singleton(LandingPlanner, transformer=gateways.checking_transformer)
    stream_runner = providers.Singleton(
        StreamRunner, stores=stores, transformer=gateways.running_transformer, patience=patience, clock=gateways.clock
    )
    engine = providers.Singleton(LocalEngine, run_stream=stream_runner.provided.run)
    claimer = providers.Singleton(RunClaimer, records=gateways.records, announcer=announcer, owner=owner, lease=lease)
    loader = providers.Singleton(
        ReadSetLoader,
        records=gateways.records,
        stores=stores,
        engine=engine,
        reads=reads,
        landings=landings,
        announcer=announcer,
        identifiers=identifiers,
        clock=gateways.clock,
        parallelism=settings.provided.run.parallelism,
        max_parallelism=settings.provided.run.max_parallelism,
        most_bytes=settings.provided.run.batches_bytes,
    )
    works = providers.Singleton(PipelineWorks, records=gateways.records, stores=stores, loader=loader)
    settler = providers.Singleton(
        RunSettler,
        records=gateways.records,
        announcer=announcer,
        doorbell=doorbell,
        max_retries=settings.provided.run.max_retries,
    )
    executor = providers.Singleton(
        RunExecutor,
        records=gateways.records,
        claimer=claimer,
        works=works,
        settler=settler,
        telemetry=telemetry,
        clock=gateways.clock,
        timeout=providers.Singleton(timedelta, seconds=settings.provided.run.timeout_seconds),
        is_draining=providers.Factory(lambda life: lambda: life.is_draining, life),
    )
    launcher = providers.Singleton(
        RunLauncher,
        records=gateways.records,
        doorbell=doorbell,
        identifiers=identifiers,
        telemetry=telemetry,
        owner=owner,
        lease=lease,
    )
    controller = providers.Singleton(RunController, records=gateways.records, doorbell=doorbell, launcher=launcher)
    looking = providers.Singleton(
        Patience,
        limit=providers.Singleton(timedelta, seconds=settings.provided.checks.preview_seconds),
        remedy="make its query cheaper, or raise HEADRACE_CHECKS__PREVIEW_SECONDS",
    )
    answers = providers.Singleton(
        AnswerLimits,
        answer_bytes=settings.provided.limits.answer_bytes,
        cell_bytes=settings.provided.limits.cell_bytes,
    )
    inspector = providers.Singleton(
        PipelineInspector,
        records=gateways.records,
        stores=stores,
        reads=reads,
        transformer=gateways.checking_transformer,
        max_preview_bytes=providers.Callable(lambda size: size * 1024**2, settings.provided.checks.answer_mb),
        turns=providers.Singleton(Turns, settings.provided.checks.previews),
        patience=looking,
        answers=answers,
    )
    catalog = providers.Singleton(
        Catalog,
        records=gateways.records,
        guard=providers.Singleton(SqlQueryGuard, bench=gateways.parsing),
        secrets=gateways.secrets,
        dialing=gateways.dialing,
        places=gateways.places,
        check_seconds=settings.provided.checks.seconds,
        default_store=gateways.default_store,
    )
    tender = providers.Singleton(
        RunTender,
        records=gateways.records,
        queue=gateways.queue,
        doorbell=doorbell,
        announcer=announcer,
        ring_again_after=lease,
    )
    workers = providers.Singleton(
        WorkerRegistry,
        records=gateways.records,
        queue=gateways.queue,
        life=life,
        own=providers.Singleton(own_process, identifiers, settings.provided.run.concurrency),
        alive_within=lease,
    )
    health = providers.Singleton(
        HealthMonitor,
        life=life,
        time_limit=providers.Singleton(timedelta, seconds=settings.provided.http.ready_timeout_seconds),
        parts=providers.Dict(
            records=gateways.records.provided.health_check,
            store=providers.Factory(store_trouble, stores, settings.provided.app.organization),
            queue=gateways.queue.provided.health_check,
            cache=gateways.cache.provided.health_check,
        ),
    )
    api_keys = providers.Singleton(ApiKeys)
    everything = providers.Singleton(
        AllUseCases,
        catalog=catalog,
        planner=providers.Singleton(
            PlanForecaster,
            catalog=catalog,
            records=gateways.records,
            stores=stores,
            reads=reads,
            landings=landings,
            patience=looking,
        ),
        launcher=launcher,
        controller=controller,
        here=providers.Singleton(
            RunsHere,
            records=gateways.records,
            launcher=launcher,
            claimer=claimer,
            controller=controller,
            executor=executor,
            announcer=announcer,
        ),
        claimer=claimer,
        executor=executor,
        inspector=inspector,
        quarantine=providers.Singleton(
            QuarantineReviewer, stores=stores, inspector=inspector, launcher=launcher, answers=answers
        ),
        rehearsal=providers.Singleton(Rehearsal, records=gateways.records, stores=stores),
        tester=providers.Singleton(SpecTester, transformer=gateways.checking_transformer),
        probe=providers.Singleton(ConnectionProbe, stores=stores),
        authenticator=providers.Singleton(Authenticator, records=gateways.records, keys=api_keys),
        keys=providers.Singleton(KeyKeeper, records=gateways.records, api_keys=api_keys, clock=gateways.clock),
        tender=tender,
        announcer=announcer,
        health=health,
        life=life,
        workers=workers,
        telemetry=telemetry,
        doorbell=doorbell,
        answers=answers,
        organization=settings.provided.app.organization,
        concurrency=settings.provided.run.concurrency,
        tick=providers.Singleton(timedelta, seconds=settings.provided.run.tick_seconds),
    )
