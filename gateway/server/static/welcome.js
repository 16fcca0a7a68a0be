// The empty page: how to connect the first device, with this gateway's own address. The page changes by itself when it knocks.

import { copyButton, el, segmented } from "./dom.js";

const DEVICE = "my-first-device";

const TOKEN = "the-token-of-my-first-device";

// `asked`: with a token.
const SNIPPETS = {
  python: (url, { asked }) => `# pip install websockets
import json, random, time
from websockets.sync.client import connect

${asked ? `url = "${url}"
token = {"Authorization": "Bearer ${TOKEN}"}
with connect(url, additional_headers=token) as gateway:` : `with connect("${url}") as gateway:`}
    print(gateway.recv())                        # welcome
    for seq in range(1, 1000):
        reading = {"temperature": round(random.uniform(20, 25), 1)}
        gateway.send(json.dumps({"seq": seq, "values": reading}))
        print(gateway.recv())                    # ack: safe on the gateway's disk
        time.sleep(1)
`,
  javascript: (url, { asked }) => `${asked ? `// Node.js 22 or newer: nothing to install
const headers = { Authorization: "Bearer ${TOKEN}" };
const url = "${url}";
const gateway = new WebSocket(url, { headers });` : `// Node.js 22 or newer, or any browser: nothing to install
const gateway = new WebSocket("${url}");`}
gateway.onmessage = (event) => console.log(event.data);
gateway.onopen = () => {
  let seq = 0;
  setInterval(() => {
    const temperature = Math.round(200 + Math.random() * 50) / 10;
    gateway.send(JSON.stringify({ seq: ++seq, values: { temperature } }));
  }, 1000);
};
`,
  arduino: (url, { host, port, path, secure, asked }) => `// ESP32 or ESP8266, library "WebSockets" by Markus Sattler
#ifdef ESP8266
#include <ESP8266WiFi.h>
#else
#include <WiFi.h>
#endif
#include <WebSocketsClient.h>

WebSocketsClient gateway;
unsigned long last = 0;

void setup() {
  WiFi.mode(WIFI_STA);
  WiFi.begin("your-network", "your-password");
  while (WiFi.status() != WL_CONNECTED) delay(100);${asked ? `
  gateway.setExtraHeaders("Authorization: Bearer ${TOKEN}");` : ""}
  gateway.${secure ? "beginSSL" : "begin"}("${host}", ${port}, "${path}");
  gateway.setReconnectInterval(2000);
}

void loop() {
  gateway.loop();
  if (!gateway.isConnected() || millis() - last < 1000) return;
  last = millis();
  String reading = String("{\\"temperature\\":") + analogRead(A0) / 100.0 + "}";
  gateway.sendTXT(reading);
}
`,
};

/** Fills `root` with the welcome for a gateway at `location`; `asked`: whether it asks devices for a token. */
export function welcome(root, location, asked) {
  const secure = location.protocol === "https:", path = `${location.pathname.replace(/[^/]*$/, "")}v1/devices/${DEVICE}`;
  const url = `${secure ? "wss" : "ws"}://${location.host}${path}`;
  const where = { host: location.hostname, port: location.port || (secure ? 443 : 80), path, secure, asked };
  const code = el("code"), pre = el("pre", { tabindex: "0", "aria-label": "Program to copy" }, code);
  let shown = "";
  const tabs = segmented(el("div", { class: "seg", role: "group", "aria-label": "Language" }), [["python", "Python"], ["javascript", "JavaScript"], ["arduino", "Arduino"]], choose);
  function choose(language) {
    tabs.set(language);
    shown = SNIPPETS[language](url, where);
    code.textContent = shown;
  }
  const local = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  root.replaceChildren(
    el("h2", { text: "Connect your first device" }),
    el("p", { text: "A device opens a WebSocket, sends readings as JSON, and gets an ack for each that is safe on this gateway’s disk. The last part of the address is its name; any name will do." }),
    el("div", { class: "card" },
      el("p", { class: "hint first", hidden: !asked }, "Devices need a token here: ", el("code", { text: `gateway token create ${DEVICE} --sketch python` }),
        " prints, where the gateway runs, a program with address and token in it. A device without one is shown on this page when it knocks, with the command that lets it in."),
      el("div", { class: "where" }, el("code", { text: url }), copyButton(() => url, "Copy address")),
      el("div", { class: "tabs" }, tabs.node, el("span", { class: "space" }), copyButton(() => shown, "Copy program")),
      pre,
      el("p", { class: "hint", hidden: !local, text: "This address is reached from this machine only. For devices elsewhere set GATEWAY_LISTEN__HOST (gateway check-config says what that asks for) and open this page under the machine’s own address." }),
      el("p", { class: "knock" }, el("span", { class: "dot", "aria-hidden": "true" }), "Waiting for the first device. This page changes by itself when it knocks.")),
  );
  choose("python");
}
