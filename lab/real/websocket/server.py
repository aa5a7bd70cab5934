"""Echoes WebSocket messages, as strictly as the `websockets` library is."""
import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    async with serve(echo, "0.0.0.0", int(sys.argv[1]), max_size=20 << 20) as server:
        await server.serve_forever()


asyncio.run(main())
