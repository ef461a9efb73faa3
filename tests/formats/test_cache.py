import stat
from pathlib import Path

import numpy as np
import pytest

from brainfed.core import bias, volume
from brainfed.formats import cache
from brainfed.formats.cache import CaseCache

KEY, OTHER = cache.key(a="1"), cache.key(a="2")


@pytest.fixture
def kept(tmp_path: Path) -> CaseCache:
    return CaseCache(cache.folder_of(tmp_path, "0123456789abcdef"))


def test_what_a_step_made_is_found_by_its_key_alone(kept: CaseCache) -> None:
    assert kept.fetch("brain", KEY) is None
    kept.store("brain", KEY, b"mask")
    assert kept.fetch("brain", KEY) == b"mask"
    assert kept.fetch("brain", OTHER) is None
    assert kept.fetch("register-t1", KEY) is None


def test_a_step_done_again_for_other_inputs_replaces_the_old_and_no_other_step(
    kept: CaseCache,
) -> None:
    kept.store("brain", KEY, b"old")
    kept.store("brain-two", KEY, b"another step")
    kept.store("brain", OTHER, b"new")
    assert kept.fetch("brain", KEY) is None
    assert kept.fetch("brain", OTHER) == b"new"
    assert kept.fetch("brain-two", KEY) == b"another step"


@pytest.mark.parametrize("place", [0, 30, 65, -1])
def test_a_damaged_file_counts_as_missing(kept: CaseCache, place: int) -> None:
    kept.store("brain", KEY, b"0123456789")
    path = kept.path("brain", KEY)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert kept.fetch("brain", KEY) is None
    path.write_bytes(content[:20])
    assert kept.fetch("brain", KEY) is None


def test_the_cache_is_for_its_owner_alone(kept: CaseCache) -> None:
    kept.store("brain", KEY, b"mask")
    assert stat.S_IMODE(kept.path("brain", KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.folder.stat().st_mode) == 0o700


def test_a_key_covers_names_values_and_code() -> None:
    assert cache.key(a="1") == cache.key(a="1")
    assert len({cache.key(a="1"), cache.key(a="2"), cache.key(b="1"), cache.key(a=1)}) == 4
    one, both = cache.code_digest(bias), cache.code_digest(bias, volume)
    assert one != both
    assert one == cache.code_digest(bias)


def test_the_code_counts_by_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "step.py"
    source.write_text("LIMIT = 1\n")
    monkeypatch.setattr(bias, "__file__", str(source))
    cache.code_digest.cache_clear()
    before = cache.code_digest(bias)
    source.write_text("LIMIT = 2\n")
    cache.code_digest.cache_clear()
    assert cache.code_digest(bias) != before
    cache.code_digest.cache_clear()


def test_arrays_come_back_as_they_were() -> None:
    arrays = {"mask": np.eye(3, dtype=np.uint8), "values": np.random.default_rng(0).normal(size=5)}
    back = cache.unpack(cache.pack(arrays))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype
