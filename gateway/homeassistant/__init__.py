"""Devices for Home Assistant: what it calls MQTT device discovery.

``payload`` makes the configuration of a device, ``meaning`` says what a metric is, by ``classes``, and ``announcer``
knows when to tell it.  Pure: what is to be published is handed on.
"""

from .announcer import Announcer
from .payload import Maker

__all__ = ["Announcer", "Maker"]
