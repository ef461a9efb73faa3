"""What holds at every moment of a command, whatever it is killed in; `test_faults` has the rest."""

import json
import os
from pathlib import Path

import pytest

from brainfed import plan as plans
from brainfed.formats import federation, ledger, workspace
from brainfed.steps.admit import admit
from brainfed.steps.start import start_federation
from tests.builders import a_plan
from tests.faults import killed_everywhere
from tests.federation import TODAY, an_unstarted_federation, enrolment_of, initial_weights, say_yes

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")


def test_the_files_of_a_killed_start_are_never_two_starts(tmp_path: Path) -> None:
    small = an_unstarted_federation(tmp_path / "small")
    admit(small.coordinator, [enrolment_of(s) for s in small.sites.values()], confirm=say_yes)
    plan = tmp_path / "plan.toml"
    plan.write_text(plans.render(a_plan()))

    def begin(root: Path) -> None:
        place = workspace.find(root)
        with workspace.locked(place):
            start_federation(place, plan, initial_weights=initial_weights, today=TODAY)

    for _, root in killed_everywhere(small.coordinator.root, tmp_path, begin, step=9):
        place = workspace.find(root)
        seen = federation.load(place).digest if federation.has_started(place) else None
        begin(root)
        known = federation.load(place)
        assert seen in {None, known.digest}
        manifests = [p.name for p in place.round_folder(0).glob("*.safetensors")]
        assert manifests == [f"test-{known.digest[:8]}.r0000.uni-lead.global.safetensors"]
        made = [
            json.dumps(entry)
            for entry in ledger.read(place.ledger_path)
            if entry.get("what") == "start"
        ]
        assert len(made) <= 1
