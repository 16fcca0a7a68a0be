"""Messages as examples, by the name of their schema; a test holds each against it.  Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["EXAMPLES"]

NOW = 1764000000000

EXAMPLES: dict[str, list[Any]] = {
    "FlatReading": [{"temperature": 22.5, "door": True}],
    "Reading": [{"ts": NOW, "seq": 17, "values": {"temperature": 22.5}}],
    "Readings": [[{"seq": 18, "values": {"temperature": 22.6}}, {"seq": 19, "values": {"temperature": 22.7}}]],
    "SenmlPack": [[{"bn": "boiler/", "bt": 1764000000, "n": "temperature", "u": "Cel", "v": 22.5}]],
    "Lines": ["telemetry,host=pump-1 temperature=22.5 1764000000000000000"],
    "DeviceHeartbeat": [{"type": "heartbeat"}],
    "Describe": [
        {
            "type": "describe",
            "name": "Boiler pump",
            "interval_s": 60,
            "metrics": {"temperature": {"unit": "Cel", "class": "temperature", "integer": False}},
        }
    ],
    "Result": [{"type": "result", "id": "c1", "ok": True, "value": 3}],
    "Welcome": [
        {
            "type": "welcome",
            "device": "pump-1",
            "session": "b7c1d2e3",
            "resumed": True,
            "last_seq": 16,
            "heartbeat_s": 20,
            "max_message_bytes": 65536,
            "rate": {"per_s": 100, "burst": 200},
            "time": NOW,
        }
    ],
    "Ack": [{"type": "ack", "seq": 17}],
    "Throttled": [{"type": "throttled", "seq": 18, "dropped": 1, "retry_after_ms": 250}],
    "DeviceError": [
        {
            "type": "error",
            "code": "bad_value",
            "detail": "values.temperature: not a finite number",
            "seq": 19,
            "index": 0,
        }
    ],
    "DeviceCommand": [
        {"type": "command", "id": "c1", "name": "set_speed", "params": {"rpm": 1200}, "expires": NOW + 60_000}
    ],
    "Subscribe": [
        {
            "type": "subscribe",
            "id": "main",
            "devices": ["pump-*"],
            "metrics": ["*"],
            "mode": "latest",
            "interval_ms": 100,
            "history_s": 300,
            "epoch": "5f0c",
            "after": 8412,
        },
        {"type": "subscribe", "metrics": ["none"]},
    ],
    "Unsubscribe": [{"type": "unsubscribe", "id": "main"}],
    "Auth": [{"type": "auth", "token": "0123456789ab.secret"}],
    "Command": [
        {
            "type": "command",
            "ref": "x1",
            "device": "pump-1",
            "name": "set_speed",
            "params": {"rpm": 1200},
            "ttl_s": 60,
        }
    ],
    "Heartbeat": [{"type": "heartbeat"}],
    "Hello": [
        {
            "type": "hello",
            "epoch": "5f0c",
            "offset": 8420,
            "heartbeat_s": 5,
            "auth": "ok",
            "time": NOW,
            "limits": {"subscriptions": 16, "globs": 1000, "max_message_bytes": 65536, "grid_ms": 50},
        }
    ],
    "Snapshot": [
        {
            "type": "snapshot",
            "id": "main",
            "offset": 8420,
            "recovered": True,
            "devices": {
                "pump-1": {
                    "state": "online",
                    "since": NOW,
                    "last_seen": NOW,
                    "values": {"temperature": [NOW, 22.5]},
                }
            },
        }
    ],
    "History": [
        {
            "type": "history",
            "id": "main",
            "data": {"pump-1": {"temperature": [[NOW, 22.4], [NOW + 1000, 22.5]]}},
            "last": True,
        }
    ],
    "Update": [
        {
            "type": "update",
            "id": "main",
            "offset": 8431,
            "data": {"pump-1": {"temperature": [[NOW + 2000, 22.6]]}},
            "skipped": 3,
        }
    ],
    "PresenceChange": [
        {
            "type": "presence",
            "id": "main",
            "devices": {"pump-2": {"state": "offline", "since": NOW, "last_seen": NOW, "reason": "ping timeout"}},
        }
    ],
    "ModeChange": [{"type": "mode", "id": "main", "mode": "latest", "reason": "slow"}],
    "LiveHeartbeat": [{"type": "heartbeat", "time": NOW}],
    "LiveError": [{"type": "error", "id": "main", "code": "bad_request", "detail": "no such subscription"}],
    "CommandState": [
        {"type": "command_state", "ref": "x1", "id": "c1", "device": "pump-1", "state": "done", "value": 3}
    ],
    "FlatPayload": [{"ts": NOW, "temperature": 22.5}],
    "Batch": [[{"ts": NOW, "values": {"temperature": 22.5}}]],
    "InfluxLines": ["telemetry,device=pump-1 temperature=22.5 1764000000000000000"],
    "PlainValue": ["22.5"],
    "ThingsBoardTelemetry": [{"pump-1": [{"ts": NOW, "values": {"temperature": 22.5}}]}],
    "ThingsBoardDevice": [{"device": "pump-1"}],
    "State": ["stale"],
    "Status": ["online"],
    "Discovery": [
        {
            "device": {"identifiers": ["gateway_-pump-1"], "name": "Boiler pump"},
            "origin": {"name": "Telemetry Gateway", "sw_version": "0.1.0"},
            "availability": [{"topic": "gateway/status"}],
            "availability_mode": "all",
            "qos": 1,
            "state_topic": "gateway/pump-1/telemetry",
            "components": {
                "temperature": {
                    "platform": "sensor",
                    "unique_id": "gateway_-pump-1_-temperature",
                    "name": "Temperature",
                    "value_template": "{{ value_json['temperature'] if value_json['temperature'] is number else '' }}",
                    "device_class": "temperature",
                    "unit_of_measurement": "°C",
                    "state_class": "measurement",
                }
            },
        }
    ],
    "SparkplugPayload": [],
    "HostState": [{"online": True, "timestamp": NOW}],
    "CommandRequest": [{"ref": "x1", "name": "set_speed", "params": {"rpm": 1200}, "ttl_s": 60}],
}
