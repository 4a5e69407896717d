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
from application.operations.measure import Measurer
from application.operations.metrics import MetricsReader
from application.operations.workers import WorkerRegistry
from application.pipelines.preview import Previewer
from application.pipelines.quarantine import QuarantineReviewer
from application.pipelines.rehearse import Rehearsal
from application.pipelines.spec_tests import SpecTester
from application.pipelines.state import PipelineStates
from application.runs.claim import RunClaimer
from application.runs.control import RunController
from application.runs.doorbell import Doorbell
from application.runs.execute import RunExecutor
from application.runs.here import RunsHere
from application.runs.history import RunHistory
from application.runs.launch import RunLauncher
from application.runs.tend import RunTender
from domain.ports.scopes import IScopes
from domain.ports.telemetry import ITelemetry


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
    history: RunHistory
    states: PipelineStates
    previewer: Previewer
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
    measurer: Measurer
    metrics: MetricsReader
    workers: WorkerRegistry
    telemetry: ITelemetry
    scopes: IScopes
    doorbell: Doorbell
    answers: AnswerLimits
    organization: str
    concurrency: int
    tick: timedelta
