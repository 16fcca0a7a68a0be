"""Clients that others wrote: every kind of message, 0 B to 1 MiB, both ways, ping, and close from both sides.

A client that is not on the machine is skipped with a sentence.  ``ws`` from npm is installed into a temporary folder.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.ws import Connection, Message, Response, Router, Server, message_handler, websocket_handler

from .support import echo, eventually, no_loop_errors

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20]
TEXT = "żółw🐢"


class Wanted:
    """What a client did, as the server saw it."""

    def __init__(self) -> None:
        self.closes: list[tuple[int | None, str]] = []
        self.control: list[tuple[str, bytes]] = []
        self.round_trips: list[float] = []


@asynccontextmanager
async def interop_server(seen: Wanted, **options: Any) -> AsyncIterator[Server]:
    """Routes: ``/echo`` inline and ``/queue`` through a task; ``/bye`` closes with 4001; ``/pinged`` pings first."""
    router = Router()

    def closed(ws: Connection) -> None:
        seen.closes.append((ws.close_code, ws.close_reason))

    async def queue(ws: Connection) -> None:
        async for message in ws:
            if message.kind in ("ping", "pong"):
                seen.control.append((message.kind, bytes(message.data)))  # type: ignore[arg-type]
            elif message.kind != "close":
                await ws.send(message)

    async def pinged(ws: Connection, message: Message) -> str:
        seen.round_trips.append(await ws.ping(b"are you there"))
        return "pinged"

    def bye(ws: Connection, message: Message) -> Message:
        return Message.close(4001, "bye " + TEXT)

    router.websocket("/echo", message_handler(echo, inline=True, closed=closed), subprotocols=["chat"])
    router.websocket("/queue", websocket_handler(queue), control=True)
    router.websocket("/small", message_handler(echo, inline=True, closed=closed), max_message_bytes=1000)
    router.websocket("/deflate", message_handler(echo), compression=True)
    router.websocket("/pinged", message_handler(pinged))
    router.websocket("/bye", message_handler(bye, inline=True))
    router.get("/", lambda request: Response(200, "<!doctype html><title>blank</title>", content_type="text/html"))
    with no_loop_errors():
        async with Server(router, max_message_bytes=2 << 20, stop_timeout=3, **options) as server:
            yield server


def check(result: dict[str, Any], seen: Wanted, *, pings: bool = True) -> None:
    """The client's own account, and the server's."""
    for path in ("echo", "queue", "deflate"):
        assert result[path] == {"text": SIZES, "binary": SIZES, "unicode": TEXT}, path
    assert result["bye"] == [4001, "bye " + TEXT]
    assert result["small"] == 1009
    assert result["pinged"] == "pinged"
    assert result["subprotocol"] == "chat"
    assert len(seen.round_trips) == 1
    assert 0 < seen.round_trips[0] < 10
    assert (4000, "done " + TEXT) in seen.closes
    if pings:
        assert ("ping", b"hello") in seen.control
        assert result["pong"] == "hello"


def sync_client(base: str) -> dict[str, Any]:
    """websocket-client."""
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed (pip install .[test]).")
    result: dict[str, Any] = {}
    for path in ("echo", "queue", "deflate"):
        # This client gives up where it offers subprotocols and none is chosen.
        offered = ["x", "chat"] if path == "echo" else None
        ws = websocket.create_connection(f"{base}/{path}", timeout=20, subprotocols=offered)
        if path == "echo":
            result["subprotocol"] = ws.getsubprotocol()
        got: dict[str, Any] = {"text": [], "binary": []}
        for size in SIZES:
            ws.send("x" * size)
            answer = ws.recv()
            assert isinstance(answer, str)
            got["text"].append(len(answer))
            ws.send_binary(b"\xff" * size)
            answer = ws.recv()
            # The library gives an empty binary message as text.
            assert size == 0 or answer == b"\xff" * size
            got["binary"].append(len(answer))
        ws.send(TEXT)
        got["unicode"] = ws.recv()
        result[path] = got
        if path == "queue":
            ws.ping("hello")
            opcode, frame = ws.recv_data_frame(control_frame=True)
            assert opcode == websocket.ABNF.OPCODE_PONG
            result["pong"] = frame.data.decode()
        ws.close(4000, ("done " + TEXT).encode())
    ws = websocket.create_connection(f"{base}/bye", timeout=20)
    ws.send("x")
    opcode, data = ws.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    result["bye"] = [int.from_bytes(data[:2], "big"), data[2:].decode()]
    ws.shutdown()
    ws = websocket.create_connection(f"{base}/small", timeout=20)
    ws.send("x" * 1001)
    result["small"] = int.from_bytes(ws.recv_data()[1][:2], "big")
    ws.shutdown()
    ws = websocket.create_connection(f"{base}/pinged", timeout=20)
    ws.send("x")
    result["pinged"] = ws.recv()
    ws.close()
    return result


async def test_websocket_client() -> None:
    """websocket-client, a blocking client of many scripts."""
    seen = Wanted()
    async with interop_server(seen) as server:
        result = await asyncio.to_thread(sync_client, f"ws://127.0.0.1:{server.port}")
        await eventually(lambda: seen.closes)
    check(result, seen)


async def test_aiohttp() -> None:
    """aiohttp's client, with its own compression."""
    aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed (pip install .[test]).")
    seen, result = Wanted(), dict[str, Any]()
    async with interop_server(seen) as server, aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
        for path in ("echo", "queue", "deflate"):
            compress = 15 if path == "deflate" else 0
            async with session.ws_connect(f"/{path}", max_msg_size=0, compress=compress, protocols=["chat"]) as ws:
                if path == "echo":
                    result["subprotocol"] = ws.protocol
                if path == "deflate":
                    assert ws.compress
                got: dict[str, Any] = {"text": [], "binary": []}
                for size in SIZES:
                    await ws.send_str("x" * size)
                    got["text"].append(len(await ws.receive_str()))
                    await ws.send_bytes(b"\xff" * size)
                    got["binary"].append(len(await ws.receive_bytes()))
                await ws.send_str(TEXT)
                got["unicode"] = await ws.receive_str()
                result[path] = got
                await ws.close(code=4000, message=("done " + TEXT).encode())
        async with session.ws_connect("/queue", autoping=False) as ws:
            await ws.ping(b"hello")
            message = await ws.receive()
            assert message.type == aiohttp.WSMsgType.PONG
            result["pong"] = bytes(message.data).decode()
        async with session.ws_connect("/bye") as ws:
            await ws.send_str("x")
            message = await ws.receive()
            result["bye"] = [message.data, message.extra]
        async with session.ws_connect("/small") as ws:
            await ws.send_str("x" * 1001)
            await ws.receive()
            result["small"] = ws.close_code
        async with session.ws_connect("/pinged") as ws:
            await ws.send_str("x")
            result["pinged"] = await ws.receive_str()
        await eventually(lambda: seen.closes)
    check(result, seen)


async def test_picows() -> None:
    """picows, a client in Cython that hands out raw frames."""
    picows = pytest.importorskip("picows", reason="picows is not installed (pip install .[test]).")
    seen, result = Wanted(), dict[str, Any]()

    class Listener(picows.WSListener):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            self.frames: asyncio.Queue[tuple[Any, bytes, Any]] = asyncio.Queue()

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            kind = frame.msg_type
            if kind == picows.WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            elif kind == picows.WSMsgType.CLOSE:
                close = (int(frame.get_close_code()), (frame.get_close_message() or b"").decode())
                self.frames.put_nowait((kind, b"", close))
                transport.send_close(frame.get_close_code(), b"")
                transport.disconnect()
            else:
                self.frames.put_nowait((kind, frame.get_payload_as_bytes(), None))

    async def open_path(path: str) -> tuple[Any, Callable[[], Any]]:
        url = f"ws://127.0.0.1:{server.port}/{path}"
        headers = {"Sec-WebSocket-Protocol": "chat"} if path == "echo" else None
        transport, listener = await picows.ws_connect(Listener, url, extra_headers=headers)
        return transport, lambda: asyncio.wait_for(listener.frames.get(), 10)

    kinds = picows.WSMsgType
    async with interop_server(seen) as server:
        for path in ("echo", "queue", "deflate"):
            transport, receive = await open_path(path)
            if path == "echo":
                result["subprotocol"] = transport.response.headers.get("Sec-WebSocket-Protocol")
            got: dict[str, Any] = {"text": [], "binary": []}
            for size in SIZES:
                for name, kind, byte in (("text", kinds.TEXT, b"x"), ("binary", kinds.BINARY, b"\xff")):
                    transport.send(kind, byte * size)
                    got_kind, data, _ = await receive()
                    assert got_kind == kind
                    assert data == byte * size
                    got[name].append(len(data))
            transport.send(kinds.TEXT, TEXT.encode())
            got["unicode"] = (await receive())[1].decode()
            result[path] = got
            if path == "queue":
                transport.send_ping(b"hello")
                kind, data, _ = await receive()
                assert kind == kinds.PONG
                result["pong"] = data.decode()
            transport.send_close(4000, ("done " + TEXT).encode())
            await transport.wait_disconnected()
        transport, receive = await open_path("bye")
        transport.send(kinds.TEXT, b"x")
        result["bye"] = list((await receive())[2])
        transport, receive = await open_path("small")
        transport.send(kinds.TEXT, b"x" * 1001)
        result["small"] = (await receive())[2][0]
        transport, receive = await open_path("pinged")
        transport.send(kinds.TEXT, b"x")
        result["pinged"] = (await receive())[1].decode()
        transport.disconnect()
        await eventually(lambda: seen.closes)
    check(result, seen)


# The same account in JavaScript, for a browser's WebSocket and for the package ``ws``.
SCRIPT = """
const sizes = %(sizes)s, text = %(text)s;
async function open(path, protocols) {
  const ws = new WebSocket(base + path, protocols || []);
  ws.binaryType = 'arraybuffer';
  ws.waiting = []; ws.queue = [];
  ws.put = (item) => { const next = ws.waiting.shift(); next ? next(item) : ws.queue.push(item); };
  ws.take = () => ws.queue.length ? Promise.resolve(ws.queue.shift()) : new Promise(r => ws.waiting.push(r));
  ws.onmessage = (event) => ws.put(event.data);
  ws.onclose = (event) => ws.put([event.code, event.reason]);
  await new Promise((resolve, reject) => { ws.onopen = resolve; ws.onerror = () => reject(new Error(path)); });
  ws.onerror = null;
  return ws;
}
async function account() {
  const result = {};
  for (const path of ['echo', 'queue', 'deflate']) {
    const ws = await open('/' + path, path === 'echo' ? ['x', 'chat'] : []);
    if (path === 'echo') result.subprotocol = ws.protocol;
    if (path === 'deflate' && !ws.extensions.includes('permessage-deflate')) throw new Error('not compressed');
    const got = {text: [], binary: []};
    for (const size of sizes) {
      ws.send('x'.repeat(size));
      let answer = await ws.take();
      if (typeof answer !== 'string') throw new Error('not text');
      got.text.push(answer.length);
      ws.send(new Uint8Array(size).fill(255));
      answer = await ws.take();
      if (!(answer instanceof ArrayBuffer)) throw new Error('not binary');
      if (!new Uint8Array(answer).every(byte => byte === 255)) throw new Error('other bytes');
      got.binary.push(answer.byteLength);
    }
    ws.send(text);
    got.unicode = await ws.take();
    result[path] = got;
    if (path === 'queue' && ws.ping) {
      result.pong = await new Promise(resolve => { ws.on('pong', data => resolve(String(data))); ws.ping('hello'); });
    }
    ws.close(4000, 'done ' + text);
    await ws.take();
  }
  let ws = await open('/bye');
  ws.send('x');
  result.bye = await ws.take();
  ws = await open('/small');
  ws.send('x'.repeat(1001));
  result.small = (await ws.take())[0];
  ws = await open('/pinged');
  ws.send('x');
  result.pinged = await ws.take();
  ws.close();
  await ws.take();
  return result;
}
"""


def script(base: str) -> str:
    return f"const base = {json.dumps(base)};" + SCRIPT % {"sizes": json.dumps(SIZES), "text": json.dumps(TEXT)}


@pytest.fixture(scope="session")
def npm_ws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds the package ``ws``."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node or npm is not on this machine (Debian packages nodejs and npm).")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "ws@8"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip("The package ws could not be installed from npm.")
    return folder


async def test_ws_of_npm(npm_ws: Path) -> None:
    """``ws``, the WebSocket package of Node.js."""
    seen = Wanted()
    async with interop_server(seen) as server:
        base = f"ws://127.0.0.1:{server.port}"
        program = "const WebSocket = require('ws');" + script(base)
        program += "account().then(r => console.log(JSON.stringify(r)), e => { console.error(e); process.exit(1); });"
        node = await asyncio.create_subprocess_exec(
            "node", "-e", program, cwd=npm_ws, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await asyncio.wait_for(node.communicate(), 60)
        assert node.returncode == 0, err.decode()
        await eventually(lambda: seen.closes)
    check(json.loads(out), seen)


@pytest.fixture
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium or chromedriver is not on this machine (Debian packages chromium and chromium-driver).")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (pip install .[test]).")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


async def test_chromium(browser: Any) -> None:
    """A browser's own WebSocket; it has no ping of its own, but answers ours."""
    seen = Wanted()
    async with interop_server(seen) as server:
        page, base = f"http://127.0.0.1:{server.port}/", f"ws://127.0.0.1:{server.port}"

        def drive() -> Any:
            browser.set_script_timeout(60)
            browser.get(page)
            ending = "const done = arguments[arguments.length - 1];"
            ending += "account().then(r => done(r), e => done({error: String(e)}));"
            return browser.execute_async_script(script(base) + ending)

        result = await asyncio.to_thread(drive)
        await eventually(lambda: seen.closes)
    assert "error" not in result, result
    check(result, seen, pings=False)
