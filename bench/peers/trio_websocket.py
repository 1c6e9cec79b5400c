"""trio-websocket as one would first write it: `send_message` for each client in turn."""

from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from bench.peers.events import event, events
from bench.peers.on_trio import obey


async def main() -> None:
    clients: dict[WebSocketConnection, None] = {}

    async def client(request: WebSocketRequest) -> None:
        ws = await request.accept()
        clients[ws] = None
        try:
            while True:
                await ws.get_message()
        except ConnectionClosed:
            pass
        finally:
            del clients[ws]

    async def to_one(ws: WebSocketConnection, count: int) -> None:
        for data in events(count):
            await ws.send_message(data.decode())

    async def to_all(count: int) -> None:
        for at in range(count):
            text = event(at + 1).decode()
            for ws in list(clients):
                await ws.send_message(text)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, client, "127.0.0.1", 0, None))
        await obey([(server.port, "/")], to_all, lambda: [partial(to_one, ws) for ws in clients], to_all)
        nursery.cancel_scope.cancel()


trio.run(main)
