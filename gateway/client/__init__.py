"""The Python client: devices (:class:`DeviceClient`) and live feeds (:class:`LiveClient`), sync and async."""
