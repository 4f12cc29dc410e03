# Run with:  python examples/asyncio_service.py [--backend cpu|cuda]
"""A service on a socket: requests share one executable, four of them in flight at a time."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import numpy as np

import asyncnet_gpu as ag

FEATURES, CLASSES = 256, 10
DEADLINE_S = 5.0  # a request that could not begin by then is refused


def make_net() -> ag.AsyncNet:
    """Return a classifier with two hidden branches."""
    rng = np.random.default_rng(0)
    net = ag.AsyncNet("classifier")
    x = net.input("x", (1, FEATURES), "float32")
    branches = []
    for name in ("wide", "narrow"):
        weights = rng.standard_normal((FEATURES, CLASSES), dtype=np.float32) / 16
        branches.append(net.matmul(x, net.parameter(f"{name}.w", weights), name=name))
    net.output(net.softmax(net.add(*branches), axis=1, name="probability"))
    return net


async def answer(
    exe: ag.Executable, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer one request: a line of JSON in, a line of JSON out."""
    request = json.loads(await reader.readline())
    try:
        x = np.asarray(request["x"], np.float32)[None]
        outputs = await exe.submit(x=x, deadline_s=DEADLINE_S)  # the event loop goes on meanwhile
        reply = {"class": int(ag.to_numpy(outputs["probability"]).argmax())}
    except (ag.QueueFull, ag.DeadlineExceeded):
        reply = {"error": "busy"}
    except (ag.AsyncNetError, KeyError) as error:
        reply = {"error": str(error)}
    writer.write(json.dumps(reply).encode() + b"\n")
    await writer.drain()
    writer.close()


async def ask(port: int, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request and return the reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(json.dumps(request).encode() + b"\n")
    reply: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    await writer.wait_closed()
    return reply


async def serve(backend: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Start the service, send all `requests` at once, return the replies in their order."""
    with make_net().compile(backend=backend, slots=4, queue=64, on_full="raise") as exe:

        async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answer(exe, reader, writer)

        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await asyncio.gather(*(ask(port, request) for request in requests))


def main(backend: str = "cpu") -> dict[str, Any]:
    """Send 16 good requests and a bad one."""
    rows = np.random.default_rng(1).standard_normal((16, FEATURES), dtype=np.float32)
    requests: list[dict[str, Any]] = [{"x": row.tolist()} for row in rows]
    replies = asyncio.run(serve(backend, [*requests, {"x": [1.0, 2.0]}]))
    for reply in replies:
        print(reply)
    return {"rows": rows, "replies": replies}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    main(parser.parse_args().backend)
