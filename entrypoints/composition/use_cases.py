"""What the system does, built from the gateways."""

import socket
from datetime import timedelta
from importlib.metadata import version

from dependency_injector import containers, providers

from application.answers import AnswerLimits
from application.catalog.documents import Catalog
from application.catalog.forecast import PlanForecaster
from application.connections.open_stores import OpenStores
from application.connections.probe import ConnectionProbe
from application.events.announce import Announcer
from application.events.follow import FollowerStarter
from application.events.freshness import Freshness
from application.events.outbox import ReactionDelivery, SubscriberDelivery
from application.events.telemetry import EventTelemetry
from application.identity.access import Authenticator, KeyKeeper
from application.loads.landing import LandingPlanner
from application.loads.load import ReadSetLoader
from application.loads.patience import Patience
from application.loads.plan_read import ReadPlanner
from application.loads.stream import StreamRunner
from application.loads.work import PipelineWorks
from application.operations.health import HealthMonitor, Life
from application.operations.measure import Measurer
from application.operations.metrics import MetricsReader
from application.operations.workers import WorkerRegistry
from application.pipelines.preview import Previewer
from application.pipelines.quarantine import QuarantineReviewer
from application.pipelines.rehearse import Rehearsal
from application.pipelines.spec_tests import SpecTester
from application.pipelines.state import PipelineStates
from application.pipelines.turns import Turns
from application.runs.claim import RunClaimer
from application.runs.control import RunController
from application.runs.doorbell import Doorbell
from application.runs.execute import RunExecutor
from application.runs.here import RunsHere
from application.runs.history import RunHistory
from application.runs.launch import RunLauncher
from application.runs.settle import RunSettler
from application.runs.tend import RunTender
from application.runs.work import WorksByKind
from domain.ports.records.workers import WorkerRecord
from domain.ports.runtime import IIdentifiers
from domain.ports.telemetry import IMetricsPage, ITelemetry
from domain.runs.work import WorkKind
from entrypoints.composition.parts import (
    authentication_health,
    disk_health,
    helpful,
    migrations_health,
    needed,
    store_health,
)
from entrypoints.composition.telemetry import with_spans
from entrypoints.use_cases import UseCases as AllUseCases
from infrastructure.engines.local import LocalEngine
from infrastructure.memory_room import give_back
from infrastructure.metadata.lease_holders import this_process
from infrastructure.security.api_keys import ApiKeys
from infrastructure.security.query_guard import SqlQueryGuard
from infrastructure.settings.tree import Settings


def own_process(process_id: str, concurrency: int) -> WorkerRecord:
    """Describe this process for the registry."""
    return WorkerRecord(
        id=process_id,
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
    process_id: providers.Dependency[str] = providers.Dependency()
    telemetry: providers.Dependency[ITelemetry] = providers.Dependency()
    metrics_page: providers.Dependency[IMetricsPage] = providers.Dependency()
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
    doorbell = providers.Singleton(Doorbell, records=gateways.records, queue=gateways.queue, telemetry=telemetry)
    freshness = providers.Singleton(Freshness)
    event_telemetry = providers.Singleton(
        EventTelemetry, telemetry=telemetry, clock=gateways.clock, freshness=freshness
    )
    follower_starter = providers.Singleton(FollowerStarter, identifiers=identifiers)
    announcer = providers.Singleton(
        Announcer,
        deliveries=providers.List(
            providers.Singleton(
                ReactionDelivery,
                records=gateways.records,
                name="followers",
                react=follower_starter,
                bound=follower_starter.provided.first,
                ring=doorbell.provided.ring,
            ),
            providers.Singleton(
                SubscriberDelivery,
                records=gateways.records,
                name="telemetry",
                tell=event_telemetry,
                clock=gateways.clock,
                holder=providers.Callable(lambda ids: ids.new_id(), identifiers),
            ),
        ),
        listeners=providers.List(event_telemetry),
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
        StreamRunner,
        stores=stores,
        transformer=gateways.running_transformer,
        patience=patience,
        clock=gateways.clock,
        telemetry=telemetry,
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
        telemetry=telemetry,
        parallelism=settings.provided.run.parallelism,
        max_parallelism=settings.provided.run.max_parallelism,
        most_bytes=settings.provided.run.batches_bytes,
    )
    pipeline_works = providers.Singleton(PipelineWorks, records=gateways.records, stores=stores, loader=loader)
    works = providers.Singleton(WorksByKind, kinds=providers.Dict({WorkKind.PIPELINE: pipeline_works}))
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
    states = providers.Singleton(PipelineStates, records=gateways.records, stores=stores)
    previewer = providers.Singleton(
        Previewer,
        stores=stores,
        reads=reads,
        transformer=gateways.checking_transformer,
        max_preview_bytes=providers.Callable(lambda size: size * 1024**2, settings.provided.checks.answer_mb),
        turns=providers.Singleton(
            Turns,
            settings.provided.checks.previews,
            patience=providers.Singleton(
                timedelta,
                seconds=providers.Callable(lambda seconds: seconds * 2 / 3, settings.provided.checks.preview_seconds),
            ),
        ),
        patience=looking,
        give_back=providers.Object(give_back),
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
        own=providers.Singleton(own_process, process_id, settings.provided.run.concurrency),
        alive_within=lease,
    )
    health = providers.Singleton(
        HealthMonitor,
        life=life,
        time_limit=providers.Singleton(timedelta, seconds=settings.provided.http.ready_timeout_seconds),
        clock=gateways.clock,
        every=providers.Singleton(timedelta, seconds=settings.provided.health.interval_seconds),
        parts=providers.Dict(
            records=providers.Factory(needed, gateways.records.provided.health_check),
            store=providers.Factory(store_health, stores, settings.provided.app.organization),
            queue=providers.Factory(needed, gateways.queue.provided.health_check),
            cache=providers.Factory(helpful, gateways.cache.provided.health_check),
            authentication=providers.Factory(authentication_health, gateways.records),
            migrations=providers.Factory(migrations_health, gateways.records),
            disk=providers.Factory(
                disk_health,
                providers.List(gateways.paths.provided.home, gateways.paths.provided.scratch),
                settings.provided.health.least_free_mb,
            ),
        ),
    )
    api_keys = providers.Singleton(ApiKeys)
    without_spans = providers.Singleton(
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
        history=providers.Singleton(RunHistory, records=gateways.records, answers=answers),
        states=states,
        previewer=previewer,
        quarantine=providers.Singleton(
            QuarantineReviewer, stores=stores, states=states, launcher=launcher, answers=answers
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
        measurer=providers.Singleton(
            Measurer,
            records=gateways.records,
            telemetry=telemetry,
            health=health,
            freshness=freshness,
            clock=gateways.clock,
            organization=settings.provided.app.organization,
            every=providers.Singleton(timedelta, seconds=settings.provided.metrics.interval_seconds),
        ),
        metrics=providers.Singleton(MetricsReader, page=metrics_page),
        workers=workers,
        telemetry=telemetry,
        scopes=gateways.scopes,
        doorbell=doorbell,
        answers=answers,
        organization=settings.provided.app.organization,
        concurrency=settings.provided.run.concurrency,
        tick=providers.Singleton(timedelta, seconds=settings.provided.run.tick_seconds),
    )
    everything: providers.Selector[AllUseCases] = providers.Selector(
        settings.provided.telemetry.exporter,
        none=without_spans,
        otlp=providers.Singleton(with_spans, without_spans, telemetry),
    )
