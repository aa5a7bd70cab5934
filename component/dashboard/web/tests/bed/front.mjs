/**
 * A door in front of a running server: the page that was built here under its own policy, everything under `/v1` handed
 * on, and streams that can be broken as networks break them: without a word.
 */
import { readFile } from "node:fs/promises";
import { createServer, request as ask } from "node:http";
import { connect } from "node:net";
import { page } from "./server.mjs";

export async function front(target) {
  const to = new URL(target);
  const door = { sockets: new Set(), received: 0 };
  const serve = await page();
  const server = createServer((request, response) => {
    if (!request.url.startsWith("/v1/")) return void serve(new URL(request.url, "http://bed").pathname, response);
    const { method, headers, url: path } = request;
    const onward = ask({ host: to.hostname, port: to.port, method, path, headers: { ...headers, host: to.host } }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  server.on("upgrade", (request, socket, head) => {
    const onward = connect(to.port, to.hostname, () => {
      const lines = Object.entries({ ...request.headers, host: to.host }).map(([name, value]) => `${name}: ${value}\r\n`);
      onward.write(`GET ${request.url} HTTP/1.1\r\n${lines.join("")}\r\n`);
      onward.write(head);
      onward.pipe(socket);
      socket.pipe(onward);
    });
    onward.on("data", (bytes) => (door.received += bytes.length));
    for (const [one, other] of [[socket, onward], [onward, socket]]) {
      one.on("error", () => other.destroy());
      one.on("close", () => {
        other.destroy();
        door.sockets.delete(one);
      });
      door.sockets.add(one);
    }
  });
  /** Breaks every stream over a WebSocket. */
  door.cut = () => door.sockets.forEach((socket) => socket.destroy());
  door.close = async () => {
    door.cut();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  door.url = `http://127.0.0.1:${server.address().port}`;
  return door;
}
