"""picows, which speaks the protocol in Cython, on asyncio's own loop as the other peers are."""

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.peers.on_asyncio import obey


class Client(WSListener):
    """One connection."""

    def __init__(self, clients: set["Client"]) -> None:
        super().__init__()
        self.clients = clients
        self.writable = asyncio.Event()
        self.writable.set()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.clients.add(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        self.clients.discard(self)
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


async def main() -> None:
    clients: set[Client] = set()

    def accept(_: WSUpgradeRequest) -> Client:
        return Client(clients)

    async def to_all(data: bytes) -> None:
        for client in clients:
            client.transport.send(WSMsgType.TEXT, data)

    async def to_one(client: Client, data: bytes) -> None:
        await client.writable.wait()
        client.transport.send(WSMsgType.TEXT, data)

    server = await ws_create_server(accept, "127.0.0.1", 0, backlog=1024)
    await obey(server.sockets[0].getsockname()[1], clients, to_all, to_one)


asyncio.run(main())
