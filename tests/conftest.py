"""What holds for every test: no network, no waiting for the disk, the same examples every time."""

import os
import socket

import pytest
from hypothesis import settings

settings.register_profile(
    "brainfed", deadline=None, derandomize=True, database=None, max_examples=50
)
settings.load_profile("brainfed")


class NetworkTouchedError(AssertionError):
    """A test opened a socket to somewhere."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket.__init__

    def guarded(self, family=-1, type=-1, proto=-1, fileno=None):  # noqa: A002
        if family in {-1, socket.AF_INET, socket.AF_INET6} and fileno is None:
            raise NetworkTouchedError(f"a socket of family {family} was opened")
        original(self, family, type, proto, fileno)

    monkeypatch.setattr(socket.socket, "__init__", guarded)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test cuts the power, so a flush can't be seen; `test_atomic` checks that it is asked."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
