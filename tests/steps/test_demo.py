"""The demo runs the whole story by the same steps as in earnest."""

import shutil
import subprocess
from pathlib import Path

import pytest

from brainfed.errors import UsageError
from brainfed.formats import dataset, federation, ledger, rounds, workspace
from brainfed.steps.demo import COORDINATOR, demo
from brainfed.steps.phantoms import CONSORTIUM, PhantomSite

PLAN = """
name = "little-demo"
rounds = 2
[cohort]
treatment = "any"
minimum_age_years = 0
[scans]
required = ["flair"]
[grid]
in_plane_mm = 6.4
size = [32, 32]
[network]
channels = [4, 8]
norm = "instance"
[participation]
floor = 1
"""


def a_small_consortium() -> tuple[PhantomSite, ...]:
    return tuple(PhantomSite(site.name, 3, site.scanner) for site in CONSORTIUM[:2])


def test_the_demo_ends_with_signed_global_weights_and_can_be_run_again(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    out = tmp_path / "demo"

    shown = demo(out, plan_path=plan, sites=a_small_consortium(), jobs=2)

    assert [r.round for r in shown.rounds] == [1, 2]
    assert set(shown.alone) == set(shown.rounds[0].by_site) == {"hospital-a", "hospital-b"}
    coordinator = workspace.find(out / COORDINATOR)
    assert federation.load(coordinator).start.purpose == "simulation"
    assert rounds.newest_round(coordinator) == 2
    site = workspace.find(out / "hospital-a")
    assert len(dataset.read_index(site.data)) == 3
    if shutil.which("ssh-keygen"):
        checked = subprocess.run(shown.check, shell=True, cwd=out, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr

    n_lines = len(ledger.read(coordinator.ledger_path))
    assert demo(out, plan_path=plan, sites=a_small_consortium(), jobs=2) == shown
    assert len(ledger.read(coordinator.ledger_path)) == n_lines


def test_the_demo_leaves_a_folder_alone_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    with pytest.raises(UsageError, match="something else"):
        demo(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_federated_training_beats_every_site_alone_and_reaches_a_dice_of_080(
    tmp_path: Path,
) -> None:
    shown = demo(tmp_path / "demo")

    assert shown.rounds[-1].mean > 0.80
    assert shown.rounds[-1].mean > max(shown.alone.values())
