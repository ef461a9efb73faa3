"""Help as a map: every command on one line under who uses it, and an example for each.

Plain text on every terminal, so that a screen reader reads what others see.
"""

from typing import Any

from typer.core import TyperGroup

LINES = {
    "init": "Make a workspace in this folder",
    "status": "Say what to do now, for whom to wait, and what to write to whom",
    "import": "Take from a medium all that concerns this workspace, checked",
    "export": "Sign what is to be carried now, and copy it to a medium",
    "archive": "Copy all signed files of the federation for an auditor",
    "report": "Write one page of where the federation stands",
    "key": "Look at this party's key (show), or replace it (rotate)",
    "admit": "Take sites, or their new keys, into the roster",
    "start": "Freeze the plan and make the first global weights",
    "amend": "Sign a new version of the plan, from a round on",
    "revoke": "Let nothing count any more that a party's key signs",
    "aggregate": "Close the open round: make the next global weights",
    "finish": "End the federation with the best round's global weights",
    "withdraw": "Say what a site's withdrawal means for the global weights",
    "check": "Look at scans before any case is made",
    "preprocess": "Make cases of scans",
    "review": "Accept or reject cases that are held",
    "split": "Divide the patients into train, validation and test",
    "train-round": "Train from the newest global weights on this site's cases",
    "release": "Show what an update tells before it leaves; approve it",
    "evaluate": "Score weights, or ready label maps, on this site's patients",
    "exclude": "Take a case out for good, and erase what was made of it",
    "purge": "Erase all that this workspace made of patients",
    "drill": "Rehearse a round with random weights, from stick to stick",
    "predict": "Outline tumours in scans; for research only",
    "demo": "Run a whole federation on generated scans, in minutes",
    "inspect": "Print all that a file holds",
    "audit": "Check a federation's files, and compute its rounds again",
    "simulate": "Compare methods on scans that lie on one machine",
    "doctor": "Say whether this machine is fit for it",
    "plan": "Look at a plan file (show, check, cost, from-weights)",
}
"""What each command does, short enough to stand beside its name at 80 columns."""

EXAMPLES = {
    "init": "brainfed init site --name hospital-a --patients 40",
    "status": "brainfed status",
    "import": "brainfed import /media/stick",
    "export": "brainfed export --to /media/stick",
    "archive": "brainfed archive /media/stick",
    "report": "brainfed report --for site",
    "key show": "brainfed key show",
    "key rotate": "brainfed key rotate --passphrase",
    "admit": "brainfed admit hospital-a.enrolment.json",
    "start": "brainfed start plan.toml",
    "amend": "brainfed amend plan-2.toml --from-round 3",
    "revoke": "brainfed revoke hospital-a",
    "aggregate": "brainfed aggregate --without hospital-a --reason not-reachable",
    "finish": "brainfed finish --round 7",
    "withdraw": "brainfed withdraw hospital-a --from-round 3",
    "check": "brainfed check scans --labels brats2023",
    "preprocess": "brainfed preprocess scans --labels brats2023",
    "review": "brainfed review patient-17 --accept",
    "split": "brainfed split",
    "train-round": "brainfed train-round --device cuda",
    "release": "brainfed release --approve --key ~/.ssh/approver --who 'A. Name'",
    "evaluate": "brainfed evaluate --round 7 --against own.safetensors",
    "exclude": "brainfed exclude patient-17 --reason withdrawn",
    "purge": "brainfed purge --reason ended",
    "drill": "brainfed drill /media/stick",
    "predict": "brainfed predict final.safetensors scans out --labels msd",
    "demo": "brainfed demo --out demo",
    "inspect": "brainfed inspect update.safetensors",
    "audit": "brainfed audit /media/stick",
    "simulate run": "brainfed simulate plan.toml --data scans --partition equal:4",
    "simulate partition": "brainfed simulate partition plan.toml --data scans",
    "doctor": "brainfed doctor --plan plan.toml",
    "plan show": "brainfed plan show plan.toml",
    "plan check": "brainfed plan check plan.toml",
    "plan from-weights": "brainfed plan from-weights own.safetensors",
    "plan cost": "brainfed plan cost plan.toml --sites 4 --courier-days 2",
}
"""One command line for each command; they are parsed in the tests."""


class ByRole(TyperGroup):
    """A group whose help has every command on a line, under who uses it, options last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the map, then the options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            if not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                panels.setdefault(panel, []).append((name.ljust(width), _line(ctx, name, command)))
        formatter.write_paragraph()
        for panel, rows in panels.items():
            formatter.write_heading(panel)
            with formatter.indentation():
                formatter.write_dl(rows)
        found = [option.get_help_record(ctx) for option in self.get_params(ctx)]
        with formatter.section("Options"):
            formatter.write_dl([record for record in found if record is not None])


def _line(ctx: Any, name: str, command: Any) -> str:
    return LINES.get(name, "") if ctx.parent is None else command.get_short_help_str(limit=200)
