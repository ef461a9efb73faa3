"""What screening and rules can and can't do: `python tests/benchmarks/attack_rules.py [FOLDER]`.

On the real federation that `make lgg` made in FOLDER (work/lgg where none is given). The training
patients of its sites are dealt anew to six groups, each of which trains one round from the global
weights of a middle round, and once more with flipped labels. Then each group in turn attacks, each
attack against each rule: the validation Dice of the new global weights, and what screening flags.
The same flags for all honest updates of the federation's own rounds. Prints tables and writes them
into `docs/explanation/robustness.md`, between its two marks. It can be stopped and run again: what
was trained and scored is kept in FOLDER/attack-rules.
"""

import json
import platform
import statistics
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.lgg import COORDINATOR, PLAN, SITES

from brainfed import plan as plans
from brainfed.core import rules
from brainfed.core.architecture import tensor_table
from brainfed.core.metrics import Measure
from brainfed.core.screening import Reported, Screened, Sums, screen
from brainfed.formats import rounds, weights, workspace
from brainfed.formats.case_file import Case
from brainfed.formats.dataset import Subset
from brainfed.formats.manifest import Manifest, ScoredWeights
from brainfed.formats.workspace import Workspace
from brainfed.plan import Aggregation, Plan, Rule
from brainfed.steps.one_round import train_from
from brainfed.steps.score_cases import entries_of, read_cases, scores_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "robustness.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
N_GROUPS, SEED = 6, 2018
NOBODY = "nobody"
LITTLE = 1.5
"""Standard deviations that "a little is enough" stays away from the mean."""
CPU = torch.device("cpu")

Values = np.ndarray


@dataclass(frozen=True)
class Group:
    """A site of this study, after its round."""

    n_patients: int
    dice_before: float
    """Of its own validation patients."""
    dice_after: float
    seconds: float


@dataclass(frozen=True)
class Study:
    """What all attacks share."""

    plan: Plan
    round: int
    """Whose global weights the groups trained from."""
    parent: Values
    validation: list[Case]
    honest: list[tuple[Group, Values]]
    """The groups and their updates, flat float32."""
    flipped: list[tuple[Group, Values]]
    """The same groups, trained with flipped labels."""

    @property
    def weights(self) -> list[int]:
        return [group.n_patients for group, _ in self.honest]


@dataclass(frozen=True)
class Attack:
    """What arrives at the coordinator in one round."""

    name: str
    attacker: int
    updates: list[Values]
    groups: list[Group]
    """What each says of itself."""


def main(root: Path) -> None:
    """Do what is left to do, then write the page."""
    if not (root / COORDINATOR).is_dir():
        sys.exit(f"No federation in {root}: `make lgg` makes it first")
    start = time.monotonic()
    place = workspace.find(root / COORDINATOR)
    study = the_study(root, place, plans.load(PLAN))
    attacks = [attack for number in range(N_GROUPS) for attack in attacks_of(study, number)]
    clip = float(np.median([norm(update - study.parent) for _, update in study.honest]))
    kept = root / "attack-rules" / "scores.json"
    found: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    honest = Attack(NOBODY, 0, [update for _, update in study.honest], [g for g, _ in study.honest])
    for attack in (honest, *attacks):
        for name, settings in the_rules(clip).items():
            key = key_of(attack, name)
            if key not in found:
                result, _ = rules.apply(settings, study.parent, attack.updates, study.weights)
                found[key] = mean_dice(study.plan, result, study.validation)
                kept.write_text(json.dumps(found))
            print(key, f"{found[key]:.3f}", flush=True)
    found["parent"] = mean_dice(study.plan, study.parent, study.validation)
    table = page(study, found, [honest, *attacks], honest_rounds(place, study.plan), clip)
    print(table, f"\n{(time.monotonic() - start) / 60:.1f} minutes")
    text = PAGE.read_text()
    PAGE.write_text(text.split(BEGIN)[0] + table + text.split(END)[1])


def the_study(root: Path, place: Workspace, plan: Plan) -> Study:
    """Train all groups, or read what an earlier run has trained."""
    number = plan.rounds // 2
    path = rounds.global_path(place, number)
    if path is None:
        sys.exit(f"Round {number} is not closed: `make lgg` goes on")
    tensors = weights.read_tensors(path, tensor_table(plan))
    training = dealt(cases_of(root, plan, Subset.TRAIN))
    validation = cases_of(root, plan, Subset.VALIDATION)
    held_out = dealt(validation)
    folder = root / "attack-rules"
    folder.mkdir(exist_ok=True)

    def trained(index: int, change: Callable[[Case], Case], word: str) -> tuple[Group, Values]:
        values, told = folder / f"{word}-{index}.npy", folder / f"{word}-{index}.json"
        if not told.exists():
            done = train_from(
                tensors,
                plan,
                training=map(change, training[index]),
                validation=map(change, held_out[index]),
                round_number=number + 1,
                site=f"group-{index}",
                device="cpu",
                precision="bf16",
                threads=1,
            )
            before, after = (
                statistics.fmean(row.dice for row in rows) for rows in (done.incoming, done.result)
            )
            np.save(values, flat(done.weights))
            group = Group(done.n_patients, before, after, done.seconds)
            told.write_text(json.dumps(asdict(group)))
        group = Group(**json.loads(told.read_text()))
        print(word, index, group, flush=True)
        return group, np.load(values)

    honest = [trained(index, lambda case: case, "honest") for index in range(N_GROUPS)]
    wrong = [trained(index, flipped, "flipped") for index in range(N_GROUPS)]
    return Study(plan, number, flat(tensors), validation, honest, wrong)


def cases_of(root: Path, plan: Plan, subset: Subset) -> list[Case]:
    """Of all sites."""
    found = []
    for name in SITES:
        data = root / name / "data"
        found += read_cases(data, entries_of(data, plan, subset), plan)
    return found


def dealt(cases: Iterable[Case]) -> list[list[Case]]:
    """At random to the groups; a patient of this data has one case."""
    every = sorted(cases, key=lambda case: case.id)
    order = np.random.default_rng(SEED).permutation(len(every))
    return [[every[number] for number in order[index::N_GROUPS]] for index in range(N_GROUPS)]


def flipped(case: Case) -> Case:
    """All brain but the tumour is outlined."""
    return replace(case, label=(case.brain_mask & (case.label == 0)).astype(case.label.dtype))


def flat(tensors: weights.Tensors) -> Values:
    """All values in the order of a weight file."""
    return np.concatenate([np.ravel(tensors[name]) for name in sorted(tensors)]).astype("<f4")


def mean_dice(plan: Plan, values: Values, cases: Sequence[Case]) -> float:
    """Of the patients under these weights."""
    tensors, start = {}, 0
    for name, shape in sorted(tensor_table(plan).items()):
        n = int(np.prod(shape))
        tensors[name] = values[start : start + n].reshape(shape)
        start += n
    return statistics.fmean(row.dice for row in scores_of(tensors, plan, cases, device=CPU))


def norm(change: Values) -> float:
    return float(np.linalg.norm(change.astype(np.float64)))


def attacks_of(study: Study, attacker: int) -> list[Attack]:
    """What one group can send in place of its update.

    Who sends other weights than it trained reports the Dice of those that it trained; who has
    flipped its labels reports what it measures with them.
    """
    parent = study.parent.astype(np.float64)
    own = study.honest[attacker][1] - parent
    others = np.stack([u - parent for i, (_, u) in enumerate(study.honest) if i != attacker])
    noise = np.random.default_rng(SEED + attacker).standard_normal(len(parent))
    sent = {
        "sign flip": -own,
        "scaling × 10": 10 * own,
        "noise of the same norm": noise * norm(own) / norm(noise),
        "labels flipped": study.flipped[attacker][1] - parent,
        "a little is enough": others.mean(axis=0) - LITTLE * others.std(axis=0),
    }
    found = []
    for name, change in sent.items():
        groups, updates = map(list, zip(*study.honest, strict=True))
        updates[attacker] = (parent + change).astype("<f4")
        if name == "labels flipped":
            groups[attacker] = study.flipped[attacker][0]
        found.append(Attack(name, attacker, updates, groups))
    return found


def the_rules(clip: float) -> dict[str, Aggregation]:
    return {
        "fedavg": Aggregation(),
        "fedavg, clipped": Aggregation(clip_norm=clip),
        "median": Aggregation(rule=Rule.MEDIAN),
        "trimmed-mean": Aggregation(rule=Rule.TRIMMED_MEAN),
        "krum": Aggregation(rule=Rule.KRUM),
    }


def key_of(attack: Attack, rule: str) -> str:
    return f"{attack.name} / {attack.attacker} / {rule}"


def screened(study: Study, attack: Attack) -> list[Screened]:
    """The groups' rows of the screening table."""
    reported = [
        Reported(group.n_patients, None, None, group.dice_before, group.dice_after)
        for group in attack.groups
    ]
    sums = Sums(study.weights)
    sums.add(study.parent, np.stack(attack.updates))
    return list(screen(sums, reported))


def honest_rounds(place: Workspace, plan: Plan) -> list[tuple[int, str, Screened]]:
    """Round, site and screening of the federation's own updates, all of them honest."""
    found = []
    for number in rounds.numbers(place):
        before = rounds.global_path(place, number - 1) if number else None
        paths = rounds.update_paths(place, number)
        if before is None or not paths:
            continue
        manifests = [weights.read_manifest(path) for path in paths]
        counts = [manifest.n_patients or 0 for manifest in manifests]
        sums = Sums(counts)
        values = [flat(weights.read_tensors(path, tensor_table(plan))) for path in paths]
        sums.add(flat(weights.read_tensors(before, tensor_table(plan))), np.stack(values))
        reported = [
            Reported(
                count,
                None,
                None,
                dice_of(manifest, ScoredWeights.INCOMING),
                dice_of(manifest, ScoredWeights.RESULT),
            )
            for count, manifest in zip(counts, manifests, strict=True)
        ]
        rows = screen(sums, reported)
        found += [(number, m.sender, row) for m, row in zip(manifests, rows, strict=True)]
    return found


def dice_of(manifest: Manifest, of: ScoredWeights) -> float | None:
    """By the site's own report; the plan has one region."""
    found = [s.mean for s in manifest.scores if (s.weights, s.measure) == (of, Measure.DICE)]
    return None if found[0] is None else found[0] / 1_000_000


def page(
    study: Study,
    found: dict[str, float],
    attacks: list[Attack],
    own_rounds: list[tuple[int, str, Screened]],
    clip: float,
) -> str:
    """The tables, for the page."""
    names = list(the_rules(clip))
    kinds = list(dict.fromkeys(attack.name for attack in attacks))
    dices, shown = [], []
    for kind in kinds:
        same = [attack for attack in attacks if attack.name == kind]
        cells = [spread([found[key_of(attack, name)] for attack in same]) for name in names]
        dices.append(f"| {kind} | {' | '.join(cells)} |")
        if kind != NOBODY:
            shown.append(f"| {kind} | {shown_of(study, same)} |")
    honest = screened(study, attacks[0])
    flagged = [f"round {n}, {site}: {flags(row)}" for n, site, row in own_rounds if row.flags]
    norms, cosines = spread_of([row for *_, row in own_rounds])
    minutes = sum(group.seconds for group, _ in (*study.honest, *study.flipped)) / 60
    head = (
        f"Made by `make attack-rules` on {time.strftime('%Y-%m-%d')}, from the global weights of "
        f"round {study.round} of `make lgg` (Dice {found['parent']:.3f}). {sum(study.weights)} "
        f"training patients in groups of {', '.join(map(str, study.weights))}; clipping at "
        f"{clip:.2f}, the median norm of the honest changes; n_dishonest "
        f"{Aggregation().n_dishonest}, trim_fraction {Aggregation().trim_fraction}. Training "
        f"{minutes:.1f} minutes, one thread, bf16; {platform.machine()}, torch {version('torch')}, "
        f"numpy {np.__version__}."
    )
    screening = (
        "What screening shows of the attacker, over the six: norm of its change, cosine to the "
        "mean of the others', Dice of the weights that came by its own report, and how often which "
        f"flag was raised. The honest groups without an attacker: norms {spread_of(honest)[0]}, "
        f"cosines {spread_of(honest)[1]}, Dice before {before_of(attacks[:1], all_groups=True)}, "
        f"flags: {flags_of(honest)}."
    )
    alarms = (
        f"False alarms on real sites: of the {len(own_rounds)} honest updates of that federation's "
        f"own rounds {len(flagged)} had a flag{': ' if flagged else ''}{'; '.join(flagged)}. Norms "
        f"{norms}, cosines {cosines}."
    )
    return f"""{BEGIN}
{textwrap.fill(head, 100)}

Dice of the new global weights, mean of {len(study.validation)} validation patients: mean over the
six attackers (lowest).

| attack | {" | ".join(names)} |
|---|{"---|" * len(names)}
{chr(10).join(dices)}

{textwrap.fill(screening, 100)}

| attack | norm | cosine | Dice before | its flags | flags of the 30 honest beside |
|---|---|---|---|---|---|
{chr(10).join(shown)}

{textwrap.fill(alarms, 100)}
{END}"""


def shown_of(study: Study, same: Sequence[Attack]) -> str:
    """One attack in the screening table."""
    rows = [screened(study, attack) for attack in same]
    own = [row[attack.attacker] for row, attack in zip(rows, same, strict=True)]
    others = [r for row, a in zip(rows, same, strict=True) for r in np.delete(row, a.attacker)]
    return " | ".join((*spread_of(own), before_of(same), flags_of(own), flags_of(others)))


def before_of(attacks: Sequence[Attack], *, all_groups: bool = False) -> str:
    """Lowest to highest, of the attackers or of everybody."""
    found = [
        group.dice_before
        for attack in attacks
        for number, group in enumerate(attack.groups)
        if all_groups or number == attack.attacker
    ]
    return f"{min(found):.2f} to {max(found):.2f}"


def spread(values: Sequence[float]) -> str:
    low = f" ({min(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{low}"


def spread_of(rows: Sequence[Screened]) -> tuple[str, str]:
    """Norms and cosines, lowest to highest."""
    norms, found = [row.norm for row in rows], [row.cosine or 0.0 for row in rows]
    return (
        f"{min(norms):.2f} to {max(norms):.2f}",
        f"{min(found):.2f} to {max(found):.2f}",
    )


def flags_of(rows: Sequence[Screened]) -> str:
    """How often each flag was raised."""
    counted = Counter(str(flag) for row in rows for flag in row.flags)
    return ", ".join(f"{flag} {n}" for flag, n in sorted(counted.items())) or "none"


def flags(row: Screened) -> str:
    return ", ".join(row.flags) or "none"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "work/lgg").resolve())
