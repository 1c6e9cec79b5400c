"""aiohttp: a ready frame for each client, without compression."""

import asyncio

from aiohttp import WSMsgType, web

from bench.peers.on_asyncio import obey


async def main() -> None:
    clients: set[web.WebSocketResponse] = set()

    async def client(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        clients.add(ws)
        try:
            async for _ in ws:
                pass
        finally:
            clients.discard(ws)
        return ws

    async def to_one(ws: web.WebSocketResponse, data: bytes) -> None:
        await ws.send_frame(data, WSMsgType.TEXT)

    async def to_all(data: bytes) -> None:
        for ws in list(clients):
            await ws.send_frame(data, WSMsgType.TEXT)

    app = web.Application()
    app.router.add_get("/", client)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    await obey(runner.addresses[0][1], clients, to_all, to_one)


asyncio.run(main())
