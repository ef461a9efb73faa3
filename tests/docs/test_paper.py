"""The page on the paper and the plans beside it say what the paper says."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from brainfed import plan as plans
from brainfed.cli.app import app
from brainfed.core.architecture import n_parameters, tensor_table
from brainfed.core.budget import hand_overs_of
from brainfed.core.cohort import Subset
from brainfed.core.contenders import Contender, Run, Training, plan_of
from brainfed.core.paper_figures import N_PARAMETERS, N_PATIENTS, ROWS
from brainfed.core.partition import Kind, Member, draw, parse
from brainfed.formats.simulation import Settings, SiteCounts
from brainfed.plan import Plan
from brainfed.steps import outlook
from brainfed.steps.preprocess import Wish
from brainfed.steps.simulated_party import Machine
from brainfed.steps.simulation_data import Prepared
from brainfed.steps.simulation_setting import Request, Setting
from tests.simulated import BRATS_2018

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "paper.md").read_text("utf-8")
FILES = sorted((ROOT / "plans").glob("sheller2018*.toml"))
SLICES = 155
SHARED = {
    "seed": 2018,
    "method": "fl",
    "cohort.treatment": "pre-operative",
    "scans.required": ["flair"],
    "scans.optional": [],
    "scans.regions": ["WT"],
    "preparation.space": "scan",
    "preparation.brain": "head",
    "grid.in_plane_mm": 0.0,
    "grid.size": [128, 128],
    "intensity.zscore": "volume",
    "split.test": 0.0,
    "network.architecture": "unet-2d",
    "network.channels": [32, 64, 128, 256, 512],
    "network.norm": "none",
    "network.activation": "relu",
    "network.dropout": 0.2,
    "network.dropout_levels": [3, 4],
    "training.loss": "log-dice",
    "training.optimiser": "adam",
    "training.optimiser_state": "reset",
    "training.rate": 5e-4,
    "training.schedule": "constant",
    "training.warm_up": 0.0,
    "training.weight_decay": 0.0,
    "training.clip_norm": 0.0,
    "training.proximal": 0.0,
    "training.batch": 64,
    "training.epochs_per_round": 1,
    "training.foreground_fraction": 0.0,
    "training.augmentation.flip": 0.0,
    "training.augmentation.rotate_degrees": 0.0,
    "training.augmentation.scale_fraction": 0.0,
    "training.augmentation.intensity_shift": 0.0,
    "training.augmentation.intensity_scale_fraction": 0.0,
    "training.augmentation.gamma": 0.0,
    "training.augmentation.noise": 0.0,
    "training.augmentation.low_resolution": 1.0,
    "training.augmentation.drop_modality": 0.0,
    "aggregation.rule": "fedavg",
    "aggregation.weights": "cases",
    "aggregation.max_weight_fraction": 1.0,
    "aggregation.clip_norm": 0.0,
}
"""What the paper has in all its experiments."""
EQUAL = {"split.rule": "fractions", "split.validation": 0.1524}
OWN: dict[str, dict[str, object]] = {
    "sheller2018": {"rounds": 20, "split.rule": "ceil", "split.validation": 0.2},
    "sheller2018-equal": {"rounds": 20} | EQUAL,
    "sheller2018-16": {"rounds": 30} | EQUAL,
    "sheller2018-32": {"rounds": 50} | EQUAL,
    "sheller2018-epochs": {"rounds": 100} | EQUAL,
}


def value_of(plan: Plan, key: str) -> object:
    found: Any = plan.model_dump(mode="json")
    for name in key.split("."):
        found = found[name]
    return found


def rows_under(marker: str) -> list[list[str]]:
    """The cells of the table below a marker, without its head."""
    table = PAGE.split(f"<!-- {marker} -->\n")[1].split("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]
    ]


def codes(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def commands() -> list[str]:
    return re.findall(r"^brainfed simulate .*$", PAGE, re.M)


# --- the plans ----------------------------------------------------------------------------------


def test_there_is_a_plan_for_every_number_of_rounds_and_way_to_hold_out() -> None:
    assert {path.stem for path in FILES} == set(OWN)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("key", [*SHARED, "rounds", "split.rule", "split.validation"])
def test_a_plan_has_the_papers_value(path: Path, key: str) -> None:
    assert value_of(plans.load(path), key) == (SHARED | OWN[path.stem])[key]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_plan_has_the_papers_network(path: Path) -> None:
    assert n_parameters(tensor_table(plans.load(path))) == N_PARAMETERS


def test_the_plans_differ_in_nothing_else() -> None:
    first, *others = (plans.flat(plans.load(path)) for path in FILES)
    different = {key for other in others for key in first if first[key] != other[key]}
    own = {"name", "rounds", "split.rule", "split.validation"}
    assert different == own | {"participation.quorum_sites"}


@pytest.mark.parametrize("n_sites", [4, 8, 16, 32])
def test_equal_sites_hold_out_32_of_210_and_each_has_someone_to_say_when_iil_stops(
    n_sites: int,
) -> None:
    sites = counts(plans.load(ROOT / "plans" / "sheller2018-equal.toml"), f"equal:{n_sites}")
    assert len(sites) == n_sites
    assert sum(site.n_validation for site in sites) == 32
    assert sum(site.n_train for site in sites) == 178
    assert min(site.n_validation for site in sites) >= 1


@pytest.mark.parametrize(
    ("name", "n_sites", "n_passes"),
    [
        ("sheller2018", 10, 20),
        ("sheller2018-equal", 4, 20),
        ("sheller2018-equal", 8, 20),
        ("sheller2018-16", 16, 30),
        ("sheller2018-32", 32, 50),
    ],
)
def test_each_way_to_learn_has_the_papers_rounds_and_epochs(
    name: str, n_sites: int, n_passes: int
) -> None:
    plan = plans.load(ROOT / "plans" / f"{name}.toml")
    own = {t: plan_of(Run(t, 0, 1, plan.training.rate), plan, n_sites) for t in Training}
    assert {t: (p.rounds, p.training.epochs_per_round) for t, p in own.items()} == {
        Training.FL: (n_passes, 1),
        Training.CIIL: (n_passes * n_sites, 1),  # a turn at each site makes a cycle
        Training.IIL: (n_sites, n_passes),
        Training.POOLED: (n_passes, 1),
        Training.ONCE: (1, n_passes),
    }
    assert own[Training.IIL].training.patience == 8
    assert own[Training.FL].participation.quorum_sites == n_sites
    kept = {t for t, p in own.items() if p.training.optimiser_state == "keep"}
    assert kept == {Training.POOLED}
    assert {p.training.schedule for p in own.values()} == {"constant"}


@pytest.mark.parametrize("n_sites", [16, 32])
@pytest.mark.parametrize(("epochs", "rounds"), [(1, 100), (2, 50), (4, 25)])
def test_the_study_of_epochs_a_round_has_100_passes_whatever_their_number(
    epochs: int, rounds: int, n_sites: int
) -> None:
    plan = plans.load(ROOT / "plans" / "sheller2018-epochs.toml")
    own = plan_of(Run(Training.FL, 0, epochs, plan.training.rate), plan, n_sites)
    assert (own.rounds, own.training.epochs_per_round) == (rounds, epochs)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_key_of_a_plan_says_where_its_value_is_from(path: Path) -> None:
    lines = [line for line in path.read_text("utf-8").splitlines() if " = " in line]
    keys = [line for line in lines if line[0] != "#" and not line.startswith("name = ")]
    assert len(keys) >= 30
    assert [line for line in keys if not re.search("# (P, C|P|C|D|open)(:|$)", line)] == []


# --- the commands -------------------------------------------------------------------------------


@cache
def asked(line: str) -> dict[str, Any]:
    """The options of a command of the page, as brainfed understands them."""
    command: Any = typer.main.get_command(app)
    command = command.commands["simulate"].commands["run"]
    with command.make_context("run", line.split()[2:]) as context:
        return dict(context.params)


def counts(plan: Plan, partition: str) -> tuple[SiteCounts, ...]:
    """What each site of the paper has, from the names of its patients."""
    names = [
        f"Brats18_{site}_{n:03d}" for site, number in BRATS_2018.items() for n in range(number)
    ]
    assert len(names) == N_PATIENTS
    members = [Member(name, place, 1, "") for place, name in enumerate(names)]
    kind, n_sites = parse(partition)
    found = draw(kind, members, n_sites=n_sites, split=plan.split, seed=plan.seed)
    sites: dict[str, list[Subset]] = {}
    for place in found.values():
        sites.setdefault(place.site, []).append(place.subset)
    return tuple(
        SiteCounts(
            site=site,
            n_train=subsets.count(Subset.TRAIN),
            n_validation=subsets.count(Subset.VALIDATION),
            n_test=subsets.count(Subset.TEST),
            n_slices=SLICES * subsets.count(Subset.TRAIN),
        )
        for site, subsets in sorted(sites.items())
    )


def setting_of(line: str) -> Setting:
    """The simulation that a command asks for, over patients of whom only the names are known."""
    words = asked(line)
    plan = plans.load(ROOT / words["plan"])
    epochs = tuple(int(number) for number in (words["epochs"] or "1").split(","))
    contenders = tuple(Contender(word) for word in words["methods"].split(","))
    sites = counts(plan, words["partition"])
    n_repeats = words["seeds"]
    return Setting(
        request=Request(
            plan=plan,
            scans=Path(),
            contenders=contenders,
            wish=Wish(),
            machine=Machine("cpu"),
        ),
        prepared=Prepared(Path(), (), {}, {}, 0),
        settings=Settings(
            plan=plans.render(plan),
            dataset="0" * 64,
            partition="0" * 64,
            partition_name=words["partition"],
            contenders=contenders,
            n_repeats=n_repeats,
            is_folded=False,
            epochs=epochs,
            rates=(plan.training.rate,),
            device="",
            precision="",
            sites=(sites,) * n_repeats,
        ),
        partitions=(),
        sites=(),
    )


def gigabytes(line: str) -> float:
    """Weight files of all runs that have ended, and of the two largest that are at work.

    At work each party has the global weights that came to it, and a sender its update besides; in
    the end the coordinator alone is left.
    """
    setting = setting_of(line)
    plan, n_sites = setting.request.plan, len(setting.settings.sites[0])
    kept, gone = 0, []
    for run in setting.first_runs():
        own = plan_of(run, plan, n_sites)
        parties = 1 if run.training is Training.POOLED else n_sites
        senders = parties if run.training is Training.FL else 1
        received = own.rounds * parties
        if run.training is Training.CIIL:  # at the end of a cycle all, else whose turn is next
            received = own.rounds + own.rounds // n_sites * (n_sites - 1)
        kept += own.rounds * (1 + senders)
        gone.append(received + own.rounds * senders)
    return (kept + sum(sorted(gone)[-2:])) * 4 * N_PARAMETERS / 1e9


def seconds_of_a_step() -> float:
    (found,) = re.findall(r"takes \*\*([0-9.]+) seconds\*\*", PAGE)
    return float(found)


def test_every_row_of_the_papers_tables_has_a_command() -> None:
    asked_for = {(words["partition"], Path(words["plan"]).stem) for words in map(asked, commands())}
    assert asked_for == {
        ("brats2018", "sheller2018"),
        ("equal:4", "sheller2018-equal"),
        ("equal:8", "sheller2018-equal"),
        ("equal:16", "sheller2018-16"),
        ("equal:32", "sheller2018-32"),
        ("equal:16", "sheller2018-epochs"),
        ("equal:32", "sheller2018-epochs"),
    }
    tables = [line for line in commands() if "-epochs.toml" not in line]
    assert len(tables) == len(ROWS)
    for line in tables:
        assert set(asked(line)["methods"].split(",")) == {"pooled", "fl", "ciil", "iil"}
        assert asked(line)["seeds"] == 3
    for line in set(commands()) - set(tables):
        assert asked(line)["epochs"] == "1,2,4"


@pytest.mark.parametrize("line", commands())
def test_a_command_takes_the_steps_the_time_and_the_disk_that_the_page_says(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = (row for row in rows_under("times") if codes(row[0]) == [asked(line)["out"].name])
    monkeypatch.setattr(outlook, "seconds_per_step", lambda *_, **__: 1.0)
    told = outlook.outlook(setting_of(line), jobs=1)
    steps = int(row[2].replace(",", ""))
    assert int(row[1]) == told.n_runs
    assert steps == pytest.approx(told.seconds, abs=50)
    assert int(row[3].replace(",", "")) == pytest.approx(
        told.seconds * seconds_of_a_step() / 3600, rel=0.01
    )
    assert int(row[4].replace(",", "")) == pytest.approx(gigabytes(line), abs=6)


@pytest.mark.parametrize("n_sites", [10, 16, 32])
def test_the_hand_overs_of_the_page_are_those_that_are_counted(n_sites: int) -> None:
    (row,) = (row for row in rows_under("hand-overs") if int(row[0]) == n_sites)
    name = {10: "sheller2018"}.get(n_sites, f"sheller2018-{n_sites}")
    plan = plans.load(ROOT / "plans" / f"{name}.toml")
    for cell, training in zip(row[2:], (Training.FL, Training.CIIL, Training.IIL), strict=True):
        own = plan_of(Run(training, 0, 1, plan.training.rate), plan, n_sites)
        assert int(cell.replace(",", "")) == hand_overs_of(training, n_sites, own.rounds)
    assert int(row[1]) == plan.rounds


# --- the page -----------------------------------------------------------------------------------


def test_every_setting_names_a_key_with_its_value_or_the_code_that_has_it() -> None:
    plan = plans.flat(plans.load(ROOT / "plans" / "sheller2018.toml"))
    rows = rows_under("settings")
    assert len(rows) >= 20
    for statement, tag, keys, code, proof in rows:
        assert tag in {"P", "C", "D", "open", "P, C", "C, open", "P; open"}, statement
        for key, value in re.findall(r"`([a-z_.]+)` = `([^`]+)`", keys):
            assert plan[key] == value, statement
        assert keys != "" and codes(code), statement
        assert codes(proof) and all("::test_" in name for name in codes(proof)), statement


def test_every_claim_of_the_paper_names_what_judges_it() -> None:
    rows = rows_under("claims")
    assert len(rows) >= 6
    for row in rows:
        assert codes(row[2]), row[0]


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`((?:core|formats|steps|cli)/\w+\.py)`", PAGE)))
)
def test_a_module_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / "src" / "brainfed" / name).is_file()


def test_the_kinds_of_partition_of_the_commands_are_the_papers() -> None:
    assert {parse(asked(line)["partition"])[0] for line in commands()} == {
        Kind.BRATS2018,
        Kind.EQUAL,
    }
