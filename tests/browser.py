"""Chromium without a window, driven over a pipe: what a page loads, asks for and looks like.

The DevTools protocol over `--remote-debugging-pipe`: JSON, each message ended by a zero byte, in on
descriptor 3 and out on 4. No socket, no driver, no package.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions"),
)
PATIENCE_SECONDS = 60.0


class Browser:
    """One page in one browser."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM is not None
        to_it, self._to_it = os.pipe()
        self._from_it, from_it = os.pipe()
        # Moved out of the way of 3 and 4; bash, since a plain sh knows descriptors to 9 only.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_it, from_it)]
        joined = ["bash", "-c", 'exec "$@" 3<&{} 4>&{}'.format(*ends), "bash", PROGRAM, *QUIET]
        self.process = subprocess.Popen(
            [*joined, "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            pass_fds=ends,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_it, from_it, *ends):
            os.close(end)
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command; what happens meanwhile goes to `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_it, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append((answer.get("method", ""), answer.get("params", {})))
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, path: Path, *, width: int, dark: bool = False) -> None:
        """Load a file, in a window so wide, and wait until it is loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.events.clear()
        assert not self.ask("Page.navigate", url=path.as_uri()).get("errorText")
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            message = self._next()
            self.events.append((message.get("method", ""), message.get("params", {})))

    def value(self, expression: str) -> Any:
        """What a line of JavaScript gives in the page, promises awaited."""
        done = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """All addresses that the page has asked for."""
        return [
            event["request"]["url"]
            for method, event in self.events
            if method == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[str]:
        """What the browser says in its console, broken rules of the page's policy among it."""
        return [
            str(event)
            for method, event in self.events
            if method in {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
        ]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_SECONDS
        while b"\0" not in self._rest:
            got = os.read(self._from_it, 1 << 16)
            assert got, "the browser has ended"
            assert time.monotonic() < end, "the browser says nothing"
            self._rest += got
        line, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """End the browser."""
        os.close(self._to_it)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._from_it)


@contextmanager
def a_browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, ended afterwards."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
