// The job of tools/bench as it is written first with `ws` and `mqtt`: to the broker, QoS 1, and to every dashboard.
const { WebSocketServer } = require("ws");
const mqtt = require("mqtt");

const [port, brokerPort] = process.argv.slice(2).map(Number);
const broker = mqtt.connect(`mqtt://127.0.0.1:${brokerPort}`);
const server = new WebSocketServer({ host: "127.0.0.1", port });
const dashboards = new Set();

server.on("connection", (socket, request) => {
  const [, kind, device] = request.url.split("/");
  if (kind === "dashboards") {
    dashboards.add(socket);
    socket.on("close", () => dashboards.delete(socket));
    return;
  }
  socket.on("message", (data) => {
    const text = JSON.stringify({ device, ...JSON.parse(data) });
    broker.publish(`bench/${device}/telemetry`, text, { qos: 1 });
    for (const dashboard of dashboards) dashboard.send(text);
  });
});
