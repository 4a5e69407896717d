"""The one object that every door receives: the use cases, built by composition."""

from dataclasses import dataclass
from datetime import timedelta

from application.answers import AnswerLimits
from application.catalog.documents import Catalog
from application.catalog.forecast import PlanForecaster
from application.connections.probe import ConnectionProbe
from application.events.announce import Announcer
from application.identity.access import Authenticator, KeyKeeper
from application.operations.health import HealthMonitor, Life
from application.operations.workers import WorkerRegistry
from application.pipelines.inspect import PipelineInspector
from application.pipelines.quarantine import QuarantineReviewer
from application.pipelines.rehearse import Rehearsal
from application.pipelines.spec_tests import SpecTester
from application.runs.claim import RunClaimer
from application.runs.control import RunController
from application.runs.doorbell import Doorbell
from application.runs.execute import RunExecutor
from application.runs.here import RunsHere
from application.runs.launch import RunLauncher
from application.runs.tend import RunTender
from domain.ports.runtime import ITelemetry


@dataclass(frozen=True)
class UseCases:
    """Everything a door may call."""

    catalog: Catalog
    planner: PlanForecaster
    launcher: RunLauncher
    controller: RunController
    here: RunsHere
    claimer: RunClaimer
    executor: RunExecutor
    inspector: PipelineInspector
    quarantine: QuarantineReviewer
    rehearsal: Rehearsal
    tester: SpecTester
    probe: ConnectionProbe
    authenticator: Authenticator
    keys: KeyKeeper
    tender: RunTender
    announcer: Announcer
    health: HealthMonitor
    life: Life
    workers: WorkerRegistry
    telemetry: ITelemetry
    doorbell: Doorbell
    answers: AnswerLimits
    organization: str
    concurrency: int
    tick: timedelta
