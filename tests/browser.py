"""A headless Chromium, driven through its own debugging protocol over a pipe; nothing else needs to be installed.

https://chromedevtools.github.io/devtools-protocol
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARROWS = {"ArrowLeft": 37, "ArrowRight": 39}


class Page:
    """One page of a file, with every request that it made in `requests`."""

    def __init__(self, path: Path, profile: Path, width: int = 1280, height: int = 900) -> None:
        (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
        for end in (theirs_in, theirs_out):
            os.set_inheritable(end, True)
        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
        options += ("--remote-debugging-pipe", f"--user-data-dir={profile}", f"--window-size={width},{height}")
        pipe = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$@"'
        self.process = subprocess.Popen(
            [shutil.which("bash") or "bash", "-c", pipe, "chromium", str(CHROMIUM), *options, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.send_end, self.receive_end = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self.number, self.session, self.unread = 0, None, bytearray()
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.loaded = False
        (target,) = [one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self.session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self("Page.navigate", url=path.as_uri())
        while not self.loaded:
            self._heard(self._message())

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.send_end.write(json.dumps(message).encode() + b"\0")
        self.send_end.flush()
        while True:
            answer = self._message()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._heard(answer)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, awaited."""
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """Presses and lets go a key: a letter, ArrowLeft or ArrowRight."""
        code = ARROWS.get(key, ord(key[0].upper()))
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def settle(self) -> None:
        """Waits until pictures in view are decoded and drawn."""
        self.value("new Promise((done) => setTimeout(() => requestAnimationFrame(() => done()), 400))")

    def screenshot(self, path: Path, **params: Any) -> None:
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", **params)["data"]))

    def pdf(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self("Page.printToPDF", printBackground=True)["data"]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.send_end.close()
        self.receive_end.close()

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            part = os.read(self.receive_end.fileno(), 1 << 20)
            assert part, "the browser is gone"
            self.unread += part
        message, _, self.unread = self.unread.partition(b"\0")
        return dict(json.loads(message))

    def _heard(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        elif method == "Page.loadEventFired":
            self.loaded = True
