"""What a store in a DuckDB file promises."""

from domain.loads.way import TEXT_WIRE
from domain.stores.capabilities import Capabilities

CAPABILITIES = Capabilities(
    landing_wires=frozenset({TEXT_WIRE.format}),
    has_queries=True,
    selects_inside=True,
    shares_snapshots=True,
    merges=True,
    knows_keys=True,
    has_far_times=True,
    folds_case=True,
)
