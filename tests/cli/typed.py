"""Typing a command line in this process, as a script would: no terminal, output to pipes."""

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from brainfed.cli.app import run
from tests.cli.json_answers import check_answer


@dataclass(frozen=True)
class Answer:
    """What a command line gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Typed:
    """Types command lines."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *words: object, answers: str | None = None) -> Answer:
        """Type words; `answers` are lines typed at a terminal, None is no terminal.

        What is printed with --json must fit the published schema of the command.
        """
        self._monkeypatch.setattr(sys, "stdin", io.StringIO() if answers is None else _At(answers))
        self._capsys.readouterr()
        code = run([str(word) for word in words])
        captured = self._capsys.readouterr()
        if "--json" in words:
            check_answer([str(word) for word in words], captured.out)
        return Answer(code, captured.out, captured.err)


class _At(io.StringIO):
    def isatty(self) -> bool:
        return True


def too_wide(text: str, width: int = 80) -> list[str]:
    """Lines over the width that could have been broken: those of more than one word.

    Questions don't count: what is typed ends their line on a terminal.
    """
    lines = [line for line in text.splitlines() if "[y/N]" not in line]
    return [line for line in lines if len(line) > width and " " in line.strip()]
