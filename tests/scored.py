"""What `evaluate` hands over: scores of made-up patients, without a network or a case file."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.formats import dataset, federation, identities, rounds
from brainfed.formats.dataset import SplitFile, Subset
from brainfed.formats.scores import Scores
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Region
from brainfed.steps.score_file import put_scores
from tests.federation import TODAY


def patient(number: int) -> str:
    """The keyed id of a patient."""
    return hashlib.sha256(f"patient {number}".encode()).hexdigest()[:16]


def rows_of(numbers: Iterable[int], *, shift: float = 0.0) -> list[CaseScore]:
    """One case a patient, each with its own scores; every third lacks a modality."""
    return [
        CaseScore(
            case=hashlib.sha256(f"case {number}".encode()).hexdigest()[:16],
            patient=patient(number),
            region=Region.WT,
            n_voxels=100,
            n_voxels_predicted=90,
            values={
                Measure.DICE: 0.3 + number / 100 + shift,
                Measure.SOFT_SLICE_DICE: 0.2 + number / 100 + shift,
                Measure.HD95_SURFACE: 4.0 + number,
            },
            is_complete=number % 3 != 0,
        )
        for number in numbers
    ]


def with_a_split(place: Workspace, numbers: Iterable[int] = range(30)) -> Workspace:
    """A site's split and the key of its ids: all that scores need of the data folder."""
    place.data.mkdir(mode=0o700)
    identities.write(place.data, identities.Identities(key=bytes(32)))
    known = federation.load(place)
    assignments = dict.fromkeys(map(patient, numbers), Subset.TEST)
    dataset.write_split(
        place.data,
        SplitFile(rule=known.first_plan.split.rule, seed=1, assignments=assignments),
    )
    return place


def global_of(place: Workspace, number: int = 0) -> WeightsFile:
    """The global weights of a round, checked."""
    path = rounds.global_path(place, number)
    assert path is not None
    return rounds.verify_weights(path, federation.load(place))


def score(
    place: Workspace,
    rows: Iterable[CaseScore],
    *,
    number: int = 0,
    subset: Subset = Subset.TEST,
) -> Path | None:
    """Hand the scores of a round's global weights over, as `evaluate` does."""
    known = federation.load(place)
    return put_scores(place, known, global_of(place, number), subset, list(rows), today=TODAY)


def scores_in(path: Path | None) -> Scores:
    assert path is not None
    return Scores.loads(path.read_bytes())
