"""What the programs in tools/ share: they start the real daemon and real servers, load them, and measure.

Independent of the gateway's own code, so that a fault in it cannot hide itself: frames, JSON and MQTT packets are
read and written here again, as cheaply as a load generator must.
"""
