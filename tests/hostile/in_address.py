"""Addresses: what stands in a path and in its query."""

from __future__ import annotations

from .corpus import Case

LONG = "x" * 64


def page(attack: str, name: str, target: str, *expected: str, check: str = "") -> Case:
    return Case(attack, name, "get", target, expected, check)


def device(attack: str, name: str, segment: str, *expected: str, check: str = "device name") -> Case:
    return Case(attack, f"device {name}", "upgrade", f"/v1/devices/{segment}", expected, check)


CASES = [
    # names
    *[
        device("names", name, segment, "400")
        for name, segment in {
            "a prototype": "__proto__",
            "a topic": "a+",
            "a topic, encoded": "%23",
            "a system topic": "$SYS",
            "a way up": "..",
            "one dot": ".",
            "SQL": "'%3B%20DROP%20TABLE%20device%3B--",
            "markup": "%3Cscript%3E",
            "line protocol": "a,b=c%20d=1",
            "a line": "a%0D%0ASet-Cookie:%20x=1",
            "a log line": "a%0AERROR%20forged",
            "an escape sequence": "%1b%5b2J",
            "a bidirectional mark": "a%E2%80%AEb",
            "another script": "%D0%B0",
            "too long": LONG + "x",
            "much too long": "x" * 4_000,
            "a space": "%20",
            "a backslash": "a%5C..%5C",
            "encoded twice": "%252e%252e",
            "a glob": "*",
        }.items()
    ],
    device("names", "of 64 characters", LONG, "101", check=""),
    device("names", "nothing", "", "404", check="routes"),
    # encoded address
    device("encoded address", "with a slash, encoded", "a%2Fb", "404", check="slash"),
    device("encoded address", "with a way up, encoded", "..%2F..%2Fetc", "404", check="slash"),
    device("encoded address", "with NUL", "a%00", "404", check="slash"),
    device("encoded address", "overlong", "%C0%AF", "400", check="path utf-8"),
    device("encoded address", "overlong way up", "%C0%AE%C0%AE", "400", check="path utf-8"),
    device("encoded address", "a surrogate", "%ED%A0%80", "400", check="path utf-8"),
    device("encoded address", "not UTF-8", "%FF", "400", check="path utf-8"),
    page("encoded address", "an escape that is none", "/livez%zz", "400", check="escapes"),
    page("encoded address", "half an escape", "/livez%2", "400", check="escapes"),
    page("encoded address", "in Microsoft's way", "/livez%u002e", "400", check="escapes"),
    device("encoded address", "as it is, beyond ASCII", "\udcff", "400", check="parser"),
    device("encoded address", "a letter, encoded", "%61", "101", check=""),
    page("encoded address", "a way up to a file", "/../../etc/passwd", "404", check="routes"),
    page("encoded address", "a way up, encoded", "/%2e%2e/%2e%2e/etc/passwd", "404", check="routes"),
    page("encoded address", "a way up from the assets", "/vendor/../../../config.py", "404", check="routes"),
    page("encoded address", "two slashes", "//livez", "404", check="routes"),
    page("encoded address", "a slash behind", "/livez/", "404", check="routes"),
    page("encoded address", "in capitals", "/LIVEZ", "404", check="routes"),
    page("encoded address", "with parameters of a segment", "/livez;a=b", "404", check="routes"),
    page("encoded address", "with a fragment", "/livez#x", "200"),
    page("encoded address", "with a backslash", "/\\livez", "404", check="routes"),
    page("encoded address", "another host's", "http://evil.example/livez", "200"),
    page("encoded address", "no path", "livez", "400", check="target"),
    page("encoded address", "an asterisk", "*", "400", check="target"),
    page("encoded address", "a tab", "/livez\tx", "400", check="escapes"),
    page("encoded address", "of 9,000 characters", "/" + "x" * 9_000, "414", check="line size"),
    page("encoded address", "of 4,000 segments", "/a" * 4_000, "404", check="routes"),
    page("encoded address", "of 2,000 escapes", "/" + "%41" * 2_000, "404", check="routes"),
    # query
    page("query", "more fields than there may be", "/livez?" + "a&" * 400, "400", check="fields"),
    page("query", "3,000 of them", "/livez?" + "a&" * 3_000, "400", check="fields"),
    page("query", "the last of a name counts", "/api/v1/history?agg=none&agg=mean", "200"),
    page("query", "not UTF-8", "/api/v1/latest?device=%FF%FE", "200"),
    page("query", "NUL", "/api/v1/latest?device=a%00b", "200"),
    *[
        Case("query", f"a device's {name}", "upgrade", f"/v1/devices/d?{query}", ("400",), check)
        for name, query, check in (
            ("session of nothing", "session=", "session"),
            ("session of 65 characters", "session=" + "x" * 65, "session"),
            ("session with a line", "session=a%0Ab", "session"),
            ("session with NUL", "session=a%00", "session"),
            ("session with a space", "session=a+b", "session"),
            ("session with a bidirectional mark", "session=a%E2%80%AE", "session"),
            ("session that is not UTF-8", "session=%FF%00", "session"),
            ("level that there is not", "ack=always", "ack"),
            ("format that there is not", "format=gateway.v9.xml", "format"),
            ("format that is a path", "format=../../etc", "format"),
        )
    ],
]
