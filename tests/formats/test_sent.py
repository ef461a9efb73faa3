"""About one round's weights a group is told once, and small changes sit out a round."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainfed.errors import ScanError
from brainfed.formats import sent
from brainfed.formats.floor import Groups
from brainfed.formats.scores import Group
from brainfed.formats.sent import Sent
from tests.federation import mode_of

NOTHING = Sent(first_round=0, groups=())


def ids(*numbers: int) -> frozenset[str]:
    return frozenset(f"{number:016x}" for number in numbers)


def groups(complete: frozenset[str], incomplete: frozenset[str] = frozenset()) -> Groups:
    return {
        Group.ALL: complete | incomplete,
        Group.COMPLETE: complete,
        Group.INCOMPLETE: incomplete,
    }


def tell(old: Sent, who: frozenset[str], number: int) -> tuple[bool, Sent]:
    """Whether figures over all these patients may leave, under a floor of 5."""
    told, new = sent.choose(old, "test", groups(who), round_number=number, floor=5)
    return Group.ALL in told, new


def test_the_same_patients_are_told_about_every_round_and_again_about_the_same() -> None:
    memory = NOTHING
    for number in (1, 1, 2, 7, 2):
        may, memory = tell(memory, ids(*range(10)), number)
        assert may


@pytest.mark.parametrize(
    "who", [ids(*range(11)), ids(*range(9)), ids(*range(1, 11)), ids(*range(14))], ids=len
)
def test_fewer_others_than_the_floor_sit_out_one_round(who: frozenset[str]) -> None:
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    may, memory = tell(memory, who, 2)
    assert not may
    assert not tell(memory, who, 2)[0]
    may, memory = tell(memory, who, 3)
    assert may
    assert not tell(memory, who, 2)[0]  # they sat it out, and still do
    assert not tell(memory, who, 1)[0]


def test_as_many_others_as_the_floor_are_told_at_once_but_not_about_the_same_weights() -> None:
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    assert not tell(memory, ids(*range(15)), 1)[0]
    may, memory = tell(memory, ids(*range(15)), 2)
    assert may
    assert not tell(memory, ids(*range(15)), 1)[0]


def test_who_changes_every_round_waits_until_the_changes_are_enough() -> None:
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    told = []
    for number in range(2, 7):
        may, memory = tell(memory, ids(*range(9 + number)), number)
        told.append(may)
    assert told == [False, False, False, False, True]


def test_a_patient_who_is_erased_is_forgotten_and_still_counts_as_a_difference() -> None:
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    memory = memory.without(ids(3))
    assert not memory.patients & ids(3)
    left = ids(*range(10)) - ids(3)
    assert not tell(memory, left, 1)[0]
    may, memory = tell(memory, left, 2)
    assert not may
    assert tell(memory, left, 3)[0]


def test_an_erased_patient_leaves_a_group_that_waits_without_making_it_wait_again() -> None:
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    _, memory = tell(memory, ids(*range(12)), 2)
    memory = memory.without(ids(11))
    assert tell(memory, ids(*range(11)), 3)[0]


def test_where_nothing_is_remembered_rounds_that_were_told_before_stay_untold() -> None:
    lost = Sent(first_round=4, groups=())
    assert not tell(lost, ids(*range(10)), 3)[0]
    may, memory = tell(lost, ids(*range(10)), 4)
    assert may
    assert not tell(memory, ids(*range(10)), 3)[0]


def test_below_the_floor_nothing_is_remembered_since_nothing_is_told() -> None:
    assert tell(NOTHING, ids(1, 2), 1) == (True, NOTHING)


def test_the_parts_are_told_together_and_with_the_whole_alone() -> None:
    first = groups(ids(*range(10)), ids(*range(20, 30)))
    told, memory = sent.choose(NOTHING, "test", first, round_number=1, floor=5)
    assert told == set(Group)
    moved = groups(ids(*range(9)), ids(9, *range(20, 30)))
    told, later = sent.choose(memory, "test", moved, round_number=2, floor=5)
    assert told == {Group.ALL}
    told, _ = sent.choose(later, "test", moved, round_number=3, floor=5)
    assert told == set(Group)
    joined = groups(ids(*range(11)), ids(*range(20, 30)))
    assert sent.choose(memory, "test", joined, round_number=2, floor=5)[0] == set()


def test_subsets_are_remembered_apart() -> None:
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    other = groups(ids(*range(50, 61)))
    assert Group.ALL in sent.choose(memory, "validation", other, round_number=1, floor=5)[0]


STATES = st.sampled_from(["away", "complete", "incomplete"])
MOVES = st.one_of(
    st.tuples(st.just("tell"), st.integers(0, 6), STATES),
    st.tuples(st.just("move"), st.integers(0, 11), STATES),
    st.tuples(st.just("erase"), st.integers(0, 11), STATES),
)


@settings(max_examples=300)
@given(
    st.integers(1, 5),
    st.lists(STATES, min_size=12, max_size=12),
    st.lists(MOVES, min_size=5, max_size=60),
)
def test_no_two_groups_told_about_one_round_differ_in_fewer_than_the_floor(
    smallest: int, states: list[str], moves: list[tuple[str, int, str]]
) -> None:
    """However patients come, change and withdraw, and in whatever order rounds are scored."""
    memory, erased = NOTHING, set()
    told: dict[int, dict[Group, frozenset[str]]] = {}
    for what, number, state in moves:
        if what == "erase":
            erased.add(number)
            memory = memory.without(ids(number))
        if what == "move":
            states[number] = state
        if what != "tell":
            continue
        here = [n for n in range(12) if n not in erased]
        now = groups(
            ids(*(n for n in here if states[n] == "complete")),
            ids(*(n for n in here if states[n] == "incomplete")),
        )
        may, memory = sent.choose(memory, "test", now, round_number=number, floor=smallest)
        large = {group: now[group] for group in may if len(now[group]) >= smallest}
        before = told.setdefault(number, {})
        for group, patients in large.items():
            assert before.get(group, patients) == patients
            before[group] = patients
        if Group.COMPLETE in large or Group.INCOMPLETE in large:
            assert large.keys() == set(Group)
    for by_group in told.values():
        if len(by_group) > 1:
            assert by_group[Group.COMPLETE] | by_group[Group.INCOMPLETE] == by_group[Group.ALL]
    for group in Group:
        rounds = [(n, by_group[group]) for n, by_group in sorted(told.items()) if group in by_group]
        for (earlier, there), (later, here) in itertools.pairwise(rounds):
            assert there == here or len(there ^ here) >= smallest or later >= earlier + 2


def test_the_memory_is_written_for_its_owner_alone_and_read_back(tmp_path: Path) -> None:
    assert sent.read(tmp_path) is None
    _, memory = tell(NOTHING, ids(*range(10)), 1)
    _, memory = tell(memory, ids(*range(11)), 2)
    sent.write(tmp_path, memory)
    assert sent.read(tmp_path) == memory
    assert mode_of(sent.path_of(tmp_path)) == 0o600


@pytest.mark.parametrize("change", [b"", b"{}", b'"brainfed-sent-2"'])
def test_a_damaged_memory_is_refused_with_a_way_out(tmp_path: Path, change: bytes) -> None:
    data = tell(NOTHING, ids(1, 2, 3, 4, 5), 1)[1].dumps()
    damaged = data.replace(b'"brainfed-sent-1"', change) if change.startswith(b'"') else change
    sent.path_of(tmp_path).write_bytes(damaged)
    with pytest.raises(ScanError, match=r"sent\.json is damaged"):
        sent.read(tmp_path)
