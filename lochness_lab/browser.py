"""How is a page looked at as a person's browser shows it? A headless Chromium, steered by its own driver.

1. Debian's chromium and chromium-driver; nothing is downloaded, and the browser reaches 127.0.0.1 alone.
2. It ends with the process that started it, however that one ends: the kernel ends its driver (processes.py), and the
   browser ends when the pipe to its driver does.
3. Its profile lies below the directory that the caller names. Root runs it without its sandbox, others with it.
4. Every wait has a limit, and what the page told its console is handed out: `complaints`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from selenium.webdriver import ChromeOptions, Remote
from selenium.webdriver.chromium.remote_connection import ChromiumRemoteConnection
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.common.proxy import Proxy, ProxyType
from selenium.webdriver.remote.client_config import ClientConfig
from selenium.webdriver.remote.webelement import WebElement

from lochness_lab.processes import Process, require_program
from lochness_lab.waiting import wait_until

LIMIT_S: Final = 30.0
DESK: Final = (1280, 900)
PHONE: Final = (360, 740)

_FLAGS: Final = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-proxy-server",
    "--lang=en",
)


class Browser:
    """A context manager, or start() and stop()."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None
        self._driver: Remote | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def driver(self) -> Remote:
        assert self._driver is not None, "the browser is not started"
        return self._driver

    def start(self) -> None:
        """Raises ConfigurationError when it is not installed."""
        options = ChromeOptions()
        options.binary_location = require_program("chromium", "chromium")
        profile = f"--user-data-dir={self._directory / 'profile'}"
        for flag in (*_FLAGS, profile, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        program = require_program("chromedriver", "chromium-driver")
        self._process = Process.start([program, "--port=0"], log=self._directory / "chromedriver.log")
        try:
            url = f"http://127.0.0.1:{self._process.wait_until(self._port, limit_s=LIMIT_S, what='chromedriver')}"
            direct = Proxy({"proxyType": ProxyType.DIRECT})  # whatever the environment names as a proxy
            connection = ChromiumRemoteConnection(
                remote_server_addr=url,
                vendor_prefix="goog",
                browser_name="chrome",
                client_config=ClientConfig(url, proxy=direct, timeout=int(LIMIT_S) * 2),
            )
            self._driver = Remote(connection, options=options)
            self.show_as(DESK)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        driver, self._driver = self._driver, None
        try:
            if driver is not None:
                driver.quit()
        finally:
            if self._process is not None:
                self._process.stop()
                self._process = None

    def open(self, url: str) -> None:
        """Load the page in a tab that has kept nothing."""
        self.driver.get(url)
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.get(url)

    def show_as(self, size: tuple[int, int], scheme: Literal["light", "dark"] = "light") -> None:
        """On a screen of this size, for a person who prefers that scheme. A narrow one is a phone."""
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self._devtools("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        """What this JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """What is to be read at the first such element, blanks and line ends as one blank; "" where there is none.

        Asked in one go: an element that was found may have been replaced a moment later.
        """
        found: str = self.run(
            "return (document.querySelector(arguments[0])?.innerText ?? '').replace(/\\s+/g, ' ').trim()", selector
        )
        return found

    def wait_for(self, selector: str, *words: str) -> str:
        """The text at `selector` once it has all these words. Raises DeadlineError with what it had instead."""
        what = f"{' and '.join(words) or 'text'} at {selector}"
        return str(self.wait(lambda: self._with_words(selector, words), what, selector))

    def wait_until_gone(self, selector: str) -> None:
        """Until no such element is there. Raises DeadlineError."""
        self.wait(lambda: not self.run("return document.querySelector(arguments[0])", selector), f"end of {selector}")

    def wait(self, condition: Callable[[], Any], what: str, selector: str = "main") -> Any:
        """As `wait_until`, saying what the page showed instead."""
        try:
            return wait_until(condition, limit_s=LIMIT_S, what=what)
        except Exception as error:
            error.add_note(f"{selector} has: {self.text(selector)!r}; console: {self.complaints()}")
            raise

    def click(self, selector: str) -> None:
        """Click the first such element once it is there. It may be made anew between being found and being clicked."""
        self.wait_for(selector)
        self.run("document.querySelector(arguments[0]).click()", selector)

    def element(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(getattr(Keys, key, key))

    def complaints(self) -> list[str]:
        """What the console was told since it was last asked: errors, also those of the page's policy."""
        told = self.driver.execute("getLog", {"type": "browser"})["value"]
        return [f"{each['level']}: {each['message']}" for each in told]

    def photograph(self, file: Path) -> None:
        """What is seen, as a PNG."""
        self.driver.save_screenshot(str(file))

    def _port(self) -> str:
        found = re.search(r"started successfully on port (\d+)", self._process.log_tail() if self._process else "")
        return found[1] if found else ""

    def _devtools(self, command: str, parameters: dict[str, Any]) -> None:
        self.driver.execute("executeCdpCommand", {"cmd": command, "params": parameters})

    def _with_words(self, selector: str, words: tuple[str, ...]) -> str:
        text = self.text(selector)
        return text if all(word in text for word in words) else ""
