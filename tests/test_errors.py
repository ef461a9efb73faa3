import inspect
import pickle
from pathlib import Path

import pytest

from brainfed import errors
from brainfed.errors import BrainfedError

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, BrainfedError)
]
EXIT_CODES = {
    "UsageError": 2,
    "WorkspaceError": 3,
    "PlanError": 4,
    "ScanError": 5,
    "FileRefusedError": 6,
    "QuorumError": 7,
    "ResourceError": 8,
    "BrainfedError": 70,
    "InterruptedByUserError": 130,
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_whole_from_a_worker_process(kind: type[BrainfedError]) -> None:
    error = kind("Wrong", expected=2, found=[3], where=Path("a/b"), hint="do this")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert back.details() == error.details()


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_has_the_exit_code_of_its_family(kind: type[BrainfedError]) -> None:
    families = [parent.__name__ for parent in kind.__mro__ if parent.__name__ in EXIT_CODES]
    assert kind.exit_code == EXIT_CODES[families[0]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_in_one_line_what_it_is_for(kind: type[BrainfedError]) -> None:
    assert kind.__doc__
    assert len(kind.__doc__.splitlines()[0]) > 20


def test_an_error_says_what_where_expected_found_and_what_next_in_this_order() -> None:
    error = BrainfedError("Wrong", hint="do this", found=0, expected="one", where="there")
    assert str(error) == "Wrong; where: there; expected: one; found: 0; next: do this"


def test_empty_parts_are_left_out() -> None:
    assert str(BrainfedError("Wrong")) == "Wrong"
    assert BrainfedError("Wrong").details() == {}
