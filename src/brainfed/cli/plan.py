"""`brainfed plan`: a plan file, without a workspace."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brainfed.cli.console import Words, show, show_json
from brainfed.cli.options import Json
from brainfed.cli.plan_words import plan_in_words

if TYPE_CHECKING:
    from brainfed.plan import Network, Plan

PlanFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A plan, a TOML file.", show_default=False)
]


def show_plan(file: PlanFile, as_json: Json = False) -> None:
    """Print a plan complete, defaults written out, as `start` freezes it."""
    from brainfed import plan as plans

    plan = plans.load(file)
    if as_json:
        show_json(_facts(plan) | {"plan": plan})
    else:
        sys.stdout.write(plans.render(plan))


def check_plan(file: PlanFile, as_json: Json = False) -> None:
    """Check a plan, and say in words what a site is asked to agree to.

    A wrong key is named, with the nearest right one; exit code 4.
    """
    from brainfed import plan as plans

    plan = plans.load(file)
    show(_facts(plan), lambda facts: _check_words(file, plan, facts), as_json=as_json)


def _facts(plan: "Plan") -> dict[str, Any]:
    from brainfed import plan as plans
    from brainfed.core.architecture import (
        n_parameters,
        network_digest,
        network_table,
        tensor_table,
    )

    n = n_parameters(network_table(plan))
    return {
        "name": plan.name,
        "digest": plans.plan_digest(plan),
        "data_digest": plans.data_digest(plan),
        "network_digest": network_digest(plan),
        "n_parameters": n,
        "n_local": n - n_parameters(tensor_table(plan)),
    }


def _check_words(file: Path, plan: "Plan", facts: dict[str, Any]) -> Words:
    yield f"{file}: a sound plan. A site that joins is shown this:"
    yield ""
    yield from plan_in_words(plan)
    yield ""
    yield f"Digest of the plan:    {facts['digest']}"
    yield f"Digest of its data:    {facts['data_digest']}"
    yield f"Digest of its network: {facts['network_digest']}"


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
