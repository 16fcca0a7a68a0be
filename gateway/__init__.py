"""The gateway: bridges devices to dashboards.

The way of a reading::

    device --ws--> server.device --> codecs --> session --> pipeline --append--> journal --group fsync--> ack
                                                              |                    |
                                                              |                    +- tail ring (bounded memory)
                                                              |                    +- segments on disk
                                                              |                         | one cursor each
                                                              |                         v
                                                              |                sinks.runner --> history | mqtt | influx
                                                              v
                                                             hub --(conflated, bounded)--> server.live --> dashboards

Imports go downwards only; ``tests/test_layers.py`` holds the rule.
"""

__version__ = "0.1.0"
