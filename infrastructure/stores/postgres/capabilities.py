"""What a Postgres store promises."""

from domain.stores.capabilities import Capabilities

FORMAT = "postgres-binary-copy"

CAPABILITIES = Capabilities(
    wires=frozenset({FORMAT}),
    landing_wires=frozenset({FORMAT}),
    has_queries=True,
    selects_inside=True,
    shares_snapshots=True,
    merges=True,
    enforces_keys=True,
    knows_keys=True,
    has_far_times=True,
)
