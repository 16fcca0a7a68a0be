"""Faults to plant in the daemon, as Python that runs before its command line: the controls of the cases."""

from __future__ import annotations

# No fault, but haste: what happens every minute or ten happens all the time, so that kills fall into it.
HASTE = """
from gateway import app
from gateway.history import History
from gateway.journal import journal
app.SNAPSHOT_S = journal.PERSIST_S = 0.1
History.__init__.__kwdefaults__["flush_s"] = 0.06
"""

HASTY_RETRY = """
from gateway.sinks.runner import Runner
Runner.__init__.__kwdefaults__.update(stopped_retry_s=0.3, retry_least_s=0.1, retry_most_s=0.5)
from gateway.sinks import mqtt_broker
mqtt_broker.SHORT_WAIT_S = 0.3
"""

ACK_BEFORE_SYNC = """
import asyncio, os
os.environ["GATEWAY_JOURNAL__COMMIT_MS"] = "1000"
from gateway.journal import Journal
append = Journal.append
def early(self, item, waiter=None, token=0):
    offset = append(self, item, waiter, token)
    if waiter is not None:
        asyncio.get_running_loop().call_soon(waiter.committed, token)
    return offset
Journal.append = early
"""

CURSOR_BEFORE_FAR_SIDE = """
import os
os.environ["GATEWAY_BATCH__MAX_DELAY_MS"] = "10"
from gateway.journal import journal, cursor
journal.PERSIST_S = 0.02
read = cursor.Cursor.read
async def early(self, offset, **options):
    batch = await read(self, offset, **options)
    if self.name == "mqtt":
        self.confirm(batch.end)
    return batch
cursor.Cursor.read = early
"""

HISTORY_FORGETS_ITS_PLACE = """
from gateway.history import History
open_ = History.open
async def forget(self, *arguments):
    await open_(self, *arguments)
    self.position = self.end = 0
History.open = forget
"""

BOOK_FORGETS = """
from gateway.devices import DeviceBook
DeviceBook.replay = lambda self, *arguments, **options: None
"""

NO_SYNC = """
import os
os.fdatasync = os.fsync = lambda fd: None
"""

STOP_WITHOUT_COMMIT = (
    ACK_BEFORE_SYNC
    + """
from gateway.ws import Server
Server.close = lambda self: os._exit(0)
"""
)

PATIENT_STOP = """
from gateway import app
app.SINKS_STOP_S = 30.0
"""

# What most programs did before 2018: the second sync says that all is well, and the pages are gone.
SYNC_AGAIN = """
import os
sync = os.fdatasync
def again(fd):
    try:
        sync(fd)
    except OSError:
        sync(fd)
os.fdatasync = again
"""

WRITE_ERRORS_UNHEARD = """
from gateway.journal.segment import Tail
append = Tail.append
def deaf(self, head, parts):
    try:
        append(self, head, parts)
    except OSError:
        self.segment.end, self.segment.end_readings = head.end, head.before + head.readings
Tail.append = deaf
"""

UNAVAILABLE_IS_TAKEN = """
from gateway.sinks.base import Unavailable
from gateway.sinks.mqtt import MqttSink
write = MqttSink.write
async def unheard(self, batch):
    try:
        return await write(self, batch)
    except Unavailable:
        return batch.end
MqttSink.write = unheard
"""

REFUSED_IS_TAKEN = """
from gateway.sinks.mqtt_link import Link
publish = Link.publish
async def unheard(self, *arguments, **options):
    await publish(self, *arguments, **options)
    return {}
Link.publish = unheard
"""

INTAKE_WAITS_FOR_SINK = """
import time
from gateway.journal import Journal
from gateway.sinks.runner import Runner
runners = []
init = Runner.__init__
def noted(self, *arguments, **options):
    init(self, *arguments, **options)
    runners.append(self)
Runner.__init__ = noted
noted.__kwdefaults__ = init.__kwdefaults__
append = Journal.append
since = 0.0
def waits(self, *arguments, **options):
    global since
    behind = any(runner.sink.name == "mqtt" and runner.behind > 200 for runner in runners)
    if behind and time.monotonic() > since + 0.1:
        time.sleep(0.04)
        since = time.monotonic()
    return append(self, *arguments, **options)
Journal.append = waits
"""

BATCHES_REVERSED = """
from gateway.sinks.layouts.flat import Flat
messages = Flat.messages
Flat.messages = lambda self, *arguments: messages(self, *arguments)[::-1]
"""

SLOW_BATCHES = """
import asyncio
from gateway.sinks.mqtt import MqttSink
write = MqttSink.write
async def slow(self, batch):
    await asyncio.sleep(0.4)
    return await write(self, batch)
MqttSink.write = slow
"""

HASTY_STORE = """
from gateway.sinks.influx import InfluxSink
InfluxSink.__init__.__kwdefaults__["timeout_s"] = 0.5
"""

STORE_ERRORS_UNHEARD = """
from influxdb_client.rest import ApiException
from gateway.sinks.influx import InfluxSink
post = InfluxSink._post
def unheard(self, batch):
    try:
        return post(self, batch)
    except ApiException:
        return 0
InfluxSink._post = unheard
"""

RETRY_AFTER_UNHEARD = """
from gateway.sinks.influx import InfluxSink
InfluxSink._retry_after = lambda self, value: None
"""

# The event loop's own clock stays what it is.
WALL_CLOCK = """
import time
time.monotonic = time.time
"""

SILENT_STAY = """
from gateway.ws import Server
receive = Server.receive
def full(self, reception):
    return len(self._waiting) < self.max_handshakes and receive(self, reception)
Server.receive = full
"""

NO_CHECKSUMS = """
from gateway.journal import record
record.is_whole = lambda *arguments: True
decode = record.decode
def tolerant(payload):
    try:
        return decode(payload)
    except ValueError:
        return []
record.decode = tolerant
"""

NO_START_AFTER_DAMAGE = """
import os
from gateway.journal import Journal, opening
recover = opening.recover
def strict(*arguments, **options):
    found = recover(*arguments, **options)
    if found.torn_bytes or found.damages or found.set_aside:
        os._exit(1)
    return found
opening.recover = strict
note = Journal._note
Journal._note = lambda self, damages: os._exit(1) if damages else note(self, damages)
"""

OVERFLOW_UNCOUNTED = """
from gateway.journal.cursor import Cursor
drop_below = Cursor.drop_below
def uncounted(self, position):
    drop_below(self, position)
    self.overflowed = 0
Cursor.drop_below = uncounted
"""

NO_RELIEF = """
from gateway.journal import Journal
Journal.pressing = lambda self, names: ()
"""

REMOVAL_UNSEEN = """
from gateway.journal import segment
segment.check_named = segment.check_place = lambda *arguments: None
"""
