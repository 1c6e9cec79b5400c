"""uvicorn with a Starlette route, the usual way to a WebSocket under ASGI."""

import asyncio
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bench.peers.on_asyncio import obey


async def main() -> None:
    clients: set[WebSocket] = set()

    async def client(ws: WebSocket) -> None:
        await ws.accept()
        clients.add(ws)
        try:
            await ws.receive()
        except WebSocketDisconnect:
            pass
        finally:
            clients.discard(ws)

    async def to_all(data: bytes) -> None:
        text = data.decode()
        for ws in list(clients):
            await ws.send_text(text)

    async def to_one(ws: WebSocket, data: bytes) -> None:
        await ws.send_text(data.decode())

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/", client)]),
        log_level="error",
        lifespan="off",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await obey(listener.getsockname()[1], clients, to_all, to_one)
    server.should_exit = server.force_exit = True
    await serving


asyncio.run(main())
