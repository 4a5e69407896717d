"""What this process has counted, shown to whoever may see it."""

from dataclasses import dataclass

from domain.identity.policy import Action, require
from domain.identity.principal import Principal
from domain.ports.telemetry import IMetricsPage


@dataclass(frozen=True)
class MetricsReader:
    """Shows the numbers of all organizations at once."""

    page: IMetricsPage

    async def read(self, reader: Principal | None) -> bytes:
        """Write them; `None` is whoever is at this machine, where it is left to that who may be.

        Raises:
            PermissionDeniedError: the reader may not.
        """
        if reader is not None:
            require(reader, Action.READ_METRICS)
        return await self.page.text()
