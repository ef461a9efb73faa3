import pytest

from tests.cli.typed import Typed


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Typed:
    """Types command lines, in an empty folder unless the words name another."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setenv("COLUMNS", "80")
    return Typed(capsys, monkeypatch)
