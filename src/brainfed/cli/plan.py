"""`brainfed plan`: a plan file, without a workspace."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brainfed.cli.console import Words, counted, show, show_json, size_words
from brainfed.cli.options import Json
from brainfed.cli.plan_words import plan_in_words
from brainfed.errors import UsageError

if TYPE_CHECKING:
    from brainfed.plan import Network, Plan

PlanFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A plan, a TOML file.", show_default=False)
]


@dataclass(frozen=True)
class PlanFacts:
    """A plan in short."""

    name: str
    digest: str
    """Of the whole plan."""
    data_digest: str
    network_digest: str
    n_parameters: int
    """Numbers of the network, those that stay at each site among them."""
    n_local: int
    """Of these, those that stay at each site."""


@dataclass(frozen=True)
class PlanShown(PlanFacts):
    """A plan, complete."""

    plan: "Plan"


@dataclass(frozen=True, kw_only=True)
class PlanCost:
    """What a federation of a plan costs."""

    method: str
    n_sites: int
    weight_bytes: int
    """Of one file."""
    passes: int
    """Over every training patient; of `iil` the most."""
    rounds: int
    hand_overs: int
    scoring_hand_overs: int
    """Besides, of `ciil`: the weights after every cycle, to each site, to be scored."""
    bytes_carried: int
    """In all hand-overs."""
    days: float
    """On the road."""


def show_plan(file: PlanFile, as_json: Json = False) -> None:
    """Print a plan complete, defaults written out, as `start` freezes it."""
    from brainfed import plan as plans

    plan = plans.load(file)
    if as_json:
        show_json(PlanShown(**vars(_facts(plan)), plan=plan))
    else:
        sys.stdout.write(plans.render(plan))


def check_plan(file: PlanFile, as_json: Json = False) -> None:
    """Check a plan, and say in words what a site is asked to agree to.

    A wrong key is named, with the nearest right one; exit code 4.
    """
    from brainfed import plan as plans

    plan = plans.load(file)
    show(_facts(plan), lambda facts: _check_words(file, plan, facts), as_json=as_json)


def _facts(plan: "Plan") -> PlanFacts:
    from brainfed import plan as plans
    from brainfed.core.architecture import (
        n_parameters,
        network_digest,
        network_table,
        tensor_table,
    )

    n = n_parameters(network_table(plan))
    return PlanFacts(
        name=plan.name,
        digest=plans.plan_digest(plan),
        data_digest=plans.data_digest(plan),
        network_digest=network_digest(plan),
        n_parameters=n,
        n_local=n - n_parameters(tensor_table(plan)),
    )


def _check_words(file: Path, plan: "Plan", facts: PlanFacts) -> Words:
    yield f"{file}: a sound plan. A site that joins is shown this:"
    yield ""
    yield from plan_in_words(plan)
    yield ""
    yield f"Digest of the plan:    {facts.digest}"
    yield f"Digest of its data:    {facts.data_digest}"
    yield f"Digest of its network: {facts.network_digest}"


def plan_from_weights(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Weights, a safetensors file.", show_default=False),
    ],
    local: Annotated[
        list[str] | None,
        typer.Option(
            "--local",
            metavar="NAME",
            help="A tensor that each site keeps to itself, or a pattern such as '*.running_*'; as "
            "often as needed.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the table [network] of a plan for a network of the sites' own.

    It lists the tensors of FILE. Those that are not float32, such as counters, stay local, and
    those named with --local.
    """
    from brainfed.steps.external_network import network_of

    network = network_of(file, local or [])
    if as_json:
        show_json(network)
    else:
        # Not as words, which are wrapped: this is to be put into a plan.
        sys.stdout.write(_table_of(network))


def _table_of(network: "Network") -> str:
    lines = ["[network]", f'architecture = "{network.architecture}"']
    for key, entries in (("tensors", network.tensors), ("local", network.local)):
        lines += [f"{key} = [", *(f'  "{entry}",' for entry in entries), "]"]
    return "\n".join(lines) + "\n"


def plan_cost(
    file: PlanFile,
    sites: Annotated[
        int | None,
        typer.Option(
            "--sites",
            min=1,
            metavar="N",
            help="Sites that take part; as many as the plan's quorum if not given.",
            show_default=False,
        ),
    ] = None,
    courier_days: Annotated[
        float,
        typer.Option("--courier-days", min=0.0, metavar="D", help="Days that one way takes."),
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Say what a federation of this plan costs: hand-overs, days on the road, megabytes.

    A hand-over is a file carried one way between a site and the coordinator. Training time comes on
    top; brainfed simulate --dry-run measures that.
    """
    import math

    from brainfed import plan as plans
    from brainfed.core import budget
    from brainfed.core.architecture import n_parameters, tensor_table

    if not math.isfinite(courier_days):
        raise UsageError(
            "This is no number of days",
            expected="a number, 0 or more",
            found=courier_days,
            where="--courier-days",
            hint="give the days of one way of the medium: `brainfed plan cost PLAN "
            "--courier-days 2`",
        )
    plan = plans.load(file)
    n_sites = sites or plan.participation.quorum_sites
    n_bytes = 4 * n_parameters(tensor_table(plan))
    cost = budget.for_plan(plan, n_sites, n_bytes)
    facts = PlanCost(
        method=plan.method.value,
        n_sites=n_sites,
        weight_bytes=n_bytes,
        passes=cost.passes,
        rounds=cost.rounds,
        hand_overs=cost.hand_overs,
        scoring_hand_overs=cost.scoring_hand_overs,
        bytes_carried=cost.bytes_carried,
        days=budget.courier_days(cost.rounds, courier_days),
    )
    show(facts, _cost_words, as_json=as_json)


def _cost_words(facts: PlanCost) -> Words:
    turns = "rounds" if facts.method == "fl" else "turns, each a round"
    yield f"{facts.method}, {counted(facts.n_sites, 'site')}, {facts.rounds} {turns}"
    yield f"- Hand-overs: {facts.hand_overs}, of {size_words(facts.weight_bytes)} each"
    if facts.scoring_hand_overs:
        yield (
            f"- Besides, if all sites score the weights after every cycle: "
            f"{facts.scoring_hand_overs}"
        )
    yield f"- Carried in all: {size_words(facts.bytes_carried)}"
    yield f"- On the road: {facts.days:g} days, the last weights to all sites among them"
    if facts.passes:
        most = "at most " if facts.method == "iil" else ""
        yield f"- Passes over every training patient: {most}{facts.passes}"
