import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core import canonical
from brainfed.errors import MalformedError
from tests.attacks import nested_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER)
    | st.text(st.sampled_from('aZ0 "\\\\/\n\x00\x7fäß✓😀'), max_size=6),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(VALUES)
def test_what_is_written_reads_back_as_the_same_value(value: object) -> None:
    assert canonical.loads(canonical.dumps(value)) == value


@given(VALUES)
def test_the_bytes_are_ascii_without_a_space_outside_of_strings(value: object) -> None:
    data = canonical.dumps(value)
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert data.isascii()


def test_the_order_of_the_keys_does_not_matter() -> None:
    assert canonical.dumps({"b": 1, "a": [True, None]}) == b'{"a":[true,null],"b":1}'
    assert canonical.dumps({"b": 1, "a": 2}) == canonical.dumps({"a": 2, "b": 1})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1}\n',
        b' {"a":1}',
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":1e3}',
        b'{"a":-0}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":9007199254740992}',
        b'{"a":' + b"9" * 5000 + b"}",
        '{"a":"ä"}'.encode(),
        b'{"a":"\\u00E4"}',
        b'{"a":"\\/"}',
        b'{"a":"\\ud800"}',
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda data: repr(data[:24]),
)
def test_any_other_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        canonical.loads(data)


@pytest.mark.parametrize("depth", [300, 400, 900, 5_000, 100_000])
def test_nesting_of_any_depth_is_refused_or_read_but_never_breaks(depth: int) -> None:
    try:
        value = canonical.loads(nested_json(depth))
    except MalformedError:
        assert depth >= 300
    else:
        assert list(value) == [""]


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), {1: 2}, {"a": b"bytes"}, "\ud800", 2**53, {"\udfff": 1}, {1, 2}]
)
def test_a_value_that_json_does_not_hold_exactly_is_not_written(value: object) -> None:
    with pytest.raises(MalformedError):
        canonical.dumps(value)
