"""What a store promises beside its methods: values that whoever asks reads before it asks for more."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """What every store of a kind can do. Which methods it has, its ports say; a promise that nobody reads is not here.

    What is left as it is here is what a store may do without, and the suite of its port does not ask for it.
    """

    wires: frozenset[str] = frozenset()
    """The formats in which it may hand out rows undecoded (`ISource.wire`)."""

    landing_wires: frozenset[str] = frozenset()
    """The formats in which it may take rows undecoded (`IDestination.landing_wire`)."""

    has_queries: bool = False
    """A source may be a query in its SQL, with parameters; without, a source names a table or files."""

    selects_inside: bool = False
    """It may insert what it selects itself (`ISource.may_run_inside`, `ISelectingWriter`)."""

    shares_snapshots: bool = False
    """Several readers may see it at one moment (`ISource.snapshot`)."""

    merges: bool = False
    """Rows may land by their key (`mode: merge`)."""

    enforces_keys: bool = False
    """A table that is made to be merged into gets the key as its primary key."""

    knows_keys: bool = False
    """Its catalog tells the primary key of a table, which proves that a read by it has an order."""

    folds_case: bool = False
    """A name in other letter case is the same name."""

    has_far_times: bool = False
    """Its times go beyond the years 1 to 9999, which Python's do not."""

    has_paths: bool = False
    """Its tables are files, named by their paths."""
