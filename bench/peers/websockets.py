"""websockets on asyncio: `broadcast`, as its documentation advises."""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.on_asyncio import obey


async def main() -> None:
    clients: set[ServerConnection] = set()

    async def client(connection: ServerConnection) -> None:
        clients.add(connection)
        try:
            await connection.wait_closed()
        finally:
            clients.discard(connection)

    async def to_all(data: bytes) -> None:
        broadcast(clients, data, text=True)

    async def to_one(connection: ServerConnection, data: bytes) -> None:
        await connection.send(data, text=True)

    async with serve(client, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=1024) as server:
        await obey(server.sockets[0].getsockname()[1], clients, to_all, to_one)


asyncio.run(main())
