"""Which way rows take from source to destination."""

from dataclasses import replace

from application.loads.ends import Ends
from application.loads.landing import Prepared
from domain.loads.read_set import SourcePlan
from domain.loads.way import Facts, Route, choose_way
from domain.pipelines.spec import PipelineSpec
from domain.ports.transformer import ITransformer


async def route_of(
    transformer: ITransformer, ends: Ends, spec: PipelineSpec, plan: SourcePlan, landing: Prepared
) -> Route:
    """Choose the way that rows take from source to destination."""
    target, transform = landing.target, landing.transform
    is_whole = not target.discarded and spec.source.refused is None
    facts = Facts(
        keeps_values=transform.keeps_values and is_whole,
        only_converts=transform.only_converts and is_whole,
        merges=target.merges,
        seen=await transformer.looks_at(transform),
        width=len(transform.source),
        is_limited=plan.limit is not None,
        ordered=plan.ordered,
        is_split=len(plan.streams) > 1,
        is_one_store=ends.is_one_store,
    )
    route = choose_way(facts)
    if not facts.may_pass:
        return route
    promised, able = ends.source.capabilities, ends.destination.capabilities
    is_inside = ends.is_one_store and promised.selects_inside
    if not (is_inside or promised.wires & able.landing_wires):
        return route  # Neither has to be asked.
    landing_names = {column.name for column in target.columns}
    reading = await ends.source.wire(spec.source)
    if reading is not None and facts.only_converts:
        converted = transformer.conversions(transform).columns
        reading = replace(reading, types={column.name: column.type for column in converted})
    elif reading is not None:
        reading = replace(reading, types={n: kind for n, kind in reading.types.items() if n in landing_names})
    return choose_way(
        replace(
            facts,
            may_run_inside=is_inside and await ends.source.may_run_inside(spec.source),
            reading=reading,
            landing=await ends.destination.landing_wire(target.table, target.columns),
        )
    )
