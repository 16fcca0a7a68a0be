"""What goes over the wire, each message once, as a struct: what the API's description is generated from.  Pure.

Three modules by whom they are for: ``device``, ``live`` and ``mqtt``; and ``answers`` to GET and POST.  Rooms on the
way of a reading encode plain dicts, which costs less; that these are the messages described here is what
``tests/api/test_traffic.py`` finds out, message by message.  Messages change by addition only: a reader takes fields
that it does not know.
"""
