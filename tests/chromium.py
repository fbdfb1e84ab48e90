"""A headless Chromium, asked over its own DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
WHY_NOT = "there is no Chromium here"


class Page:
    """One page; `requests` holds every address that it asked for, `said` what its console printed."""

    def __init__(self, process: asyncio.subprocess.Process, session: Any, socket: Any) -> None:
        self._process = process
        self._session = session
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requests: list[str] = []
        self.said: list[str] = []
        self._reader = asyncio.create_task(self._read())

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = len(self._answers) + 1
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(self._answers[number], 20)

    async def run(self, script: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"]["result"].get("value")

    async def press(self, text: str) -> None:
        for key in text:
            for kind in ("keyDown", "keyUp"):
                extra = {"text": key} if kind == "keyDown" else {}
                await self.call("Input.dispatchKeyEvent", type=kind, key=key, **extra)

    async def screenshot(self, path: Path) -> None:
        answer = await self.call("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(answer["result"]["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await self._session.close()
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers[told["id"]].set_result(told)
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Network.webSocketCreated":
                self.requests.append(told["params"]["url"])
            elif told["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.said.append(json.dumps(told["params"])[:500])


async def open_page(address: str, folder: Path, *, size: tuple[int, int] = (1180, 760)) -> Page:
    """The page at `address`, in a browser of its own."""
    import aiohttp

    assert CHROMIUM is not None
    width, height = size
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *flags,
        "--headless=new",
        "--disable-gpu",
        "--no-first-run",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        f"--window-size={width},{height}",
        "about:blank",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    while b"DevTools listening on" not in (line := await asyncio.wait_for(process.stderr.readline(), 60)):
        assert line, "Chromium ended"
    port = line.decode().split("ws://")[1].split("/")[0]
    asyncio.create_task(_drain(process.stderr))  # noqa: RUF006  # ends with it
    session = aiohttp.ClientSession()
    async with session.get(f"http://{port}/json") as answer:
        targets = await answer.json(content_type=None)
    target = next(found for found in targets if found["type"] == "page")
    socket = await session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
    page = Page(process, session, socket)
    for domain in ("Network", "Page", "Runtime", "Log"):
        await page.call(f"{domain}.enable")
    await page.call("Page.navigate", url=address)
    return page


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass
