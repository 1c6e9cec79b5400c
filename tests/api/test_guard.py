import pytest

from daemon.api.guard import Caller, check, host_name, is_loopback
from daemon.config import Config
from daemon.errors import CallerError

STATUS = {"forbidden_host": 403, "forbidden_origin": 403, "unauthorized": 401}


def caller(**given) -> Caller:
    defaults = {
        "host": "127.0.0.1:8000",
        "origin": None,
        "bearer": None,
        "peer": "127.0.0.1",
        "local": "127.0.0.1",
        "forwarded": False,
    }
    return Caller(**{**defaults, **given})


def verdict(who: Caller, **settings) -> str:
    try:
        check(who, Config(**settings))
    except CallerError as error:
        return error.code if error.status == STATUS[error.code] else f"{error.status} {error.code}"
    return "ok"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost:8000",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:8000",
        "localhost:",  # an empty port is the scheme's own
    ],
)
def test_host_is_let_in_when_it_names_the_loopback_that_is_bound(host):
    assert verdict(caller(host=host)) == "ok"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        " ",
        ":8000",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example.localhost",
        "localhost.",
        "127.0.0.1.",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "0.0.0.0:8000",
        "[::]:8000",
        "::1",
        "[::1",
        "[::1]evil.example",
        "[::1].evil.example:8000",
        "[::ffff:127.0.0.1]",
        "localhost:8000:8000",
        "localhost:evil",
        "localhost:evil.example",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost/",
        "localhost, evil.example",
        " localhost",
        "localhost\n",
        "l\u00f6calhost",
        "*",
    ],
)
def test_host_is_refused_when_it_is_no_name_of_the_daemon(host):
    assert verdict(caller(host=host)) == "forbidden_host"


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("demo.example.com", "demo.example.com", "ok"),
        ("demo.example.com", "Demo.Example.com:443", "ok"),
        ("Demo.Example.com", "demo.example.com", "ok"),
        ("demo.example.com:8443", "demo.example.com", "ok"),
        ("demo.example.com", "sub.demo.example.com", "forbidden_host"),
        ("demo.example.com", "demo.example.com.evil.example", "forbidden_host"),
        ("demo.example.com", "xdemo.example.com", "forbidden_host"),
        ("fd00::1", "[fd00::1]:8000", "ok"),
        ("*", "evil.example", "forbidden_host"),
        ("", "", "forbidden_host"),
    ],
)
def test_allowed_host_counts_exactly(allowed, host, expected):
    assert verdict(caller(host=host), allow_host=(allowed,)) == expected


@pytest.mark.parametrize(
    ("bound", "host", "local", "expected"),
    [
        ("127.0.0.2", "127.0.0.2:8000", "127.0.0.2", "ok"),
        ("127.0.0.2", "localhost", "127.0.0.2", "ok"),
        ("localhost", "localhost", "127.0.0.1", "ok"),
        ("::1", "[::1]:8000", "::1", "ok"),
        ("192.168.1.5", "192.168.1.5:8000", "192.168.1.5", "ok"),
        ("192.168.1.5", "localhost:8000", "192.168.1.5", "forbidden_host"),
        ("Box.lan", "box.LAN:8000", "192.168.1.5", "ok"),
        ("0.0.0.0", "192.168.1.5:8000", "192.168.1.5", "ok"),
        ("0.0.0.0", "192.168.1.6:8000", "192.168.1.5", "forbidden_host"),
        ("0.0.0.0", "localhost:8000", "127.0.0.1", "ok"),
        ("0.0.0.0", "0.0.0.0:8000", "127.0.0.1", "ok"),
        ("0.0.0.0", "evil.example", "127.0.0.1", "forbidden_host"),
        ("::", "[fd00::5]:8000", "fd00::5", "ok"),
        ("::", "[::]:8000", "::1", "ok"),
        ("", "", "127.0.0.1", "forbidden_host"),
    ],
)
def test_host_follows_the_address_that_is_bound(bound, host, local, expected):
    assert verdict(caller(host=host, local=local), host=bound, api_token="t") == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, "ok"),
        ("http://localhost:8000", "ok"),
        ("https://localhost:8000", "ok"),
        ("https://app.example", "ok"),  # allowed
        ("http://127.0.0.1:8000", "forbidden_origin"),  # the same place, but not the name that was asked
        ("null", "forbidden_origin"),
        ("", "forbidden_origin"),
        ("*", "forbidden_origin"),
        ("https://evil.example", "forbidden_origin"),
        ("http://localhost", "forbidden_origin"),
        ("http://localhost:3000", "forbidden_origin"),
        ("http://localhost:80000", "forbidden_origin"),
        ("http://localhost:8000.evil.example", "forbidden_origin"),
        ("http://localhost:8000/", "forbidden_origin"),
        ("http://evil@localhost:8000", "forbidden_origin"),
        ("ftp://localhost:8000", "forbidden_origin"),
        ("localhost:8000", "forbidden_origin"),
        ("http://app.example", "forbidden_origin"),
        ("https://app.example:8443", "forbidden_origin"),
        ("https://app.example.evil.example", "forbidden_origin"),
        ("https://evilapp.example", "forbidden_origin"),
        ("https://sub.app.example", "forbidden_origin"),
        ("https://app.example/", "forbidden_origin"),
        ("https://app.example https://evil.example", "forbidden_origin"),
        ("chrome-extension://abcdef", "forbidden_origin"),
    ],
)
def test_origin_is_its_own_or_an_allowed_one_exactly(origin, expected):
    assert verdict(caller(host="localhost:8000", origin=origin), allow_origin=("https://app.example",)) == expected


def test_own_origin_does_not_depend_on_the_case_of_the_host():
    assert verdict(caller(host="LOCALHOST:8000", origin="http://localhost:8000")) == "ok"


def test_null_origin_is_let_in_when_it_is_allowed_by_name():
    assert verdict(caller(origin="null"), allow_origin=("null",)) == "ok"


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1"])
def test_loopback_needs_no_token(peer):
    assert verdict(caller(peer=peer), api_token="secret") == "ok"


@pytest.mark.parametrize("peer", ["192.168.1.7", "10.0.0.1", "fd00::2", "fe80::1%eth0", "2001:db8::1", "0.0.0.0", None])
@pytest.mark.parametrize(
    ("bearer", "expected"),
    [
        ("secret", "ok"),
        (None, "unauthorized"),
        ("", "unauthorized"),
        ("Secret", "unauthorized"),
        ("secret ", "unauthorized"),
        ("secre", "unauthorized"),
        ("secrett", "unauthorized"),
        ("s\u00e9cret", "unauthorized"),
        ("\u20ac", "unauthorized"),
    ],
)
def test_another_machine_needs_the_token(peer, bearer, expected):
    assert verdict(caller(peer=peer, bearer=bearer), api_token="secret") == expected


def test_forwarded_caller_needs_the_token_when_its_proxy_is_on_loopback():
    assert verdict(caller(forwarded=True), api_token="secret") == "unauthorized"
    assert verdict(caller(forwarded=True, bearer="secret"), api_token="secret") == "ok"


@pytest.mark.parametrize("bearer", [None, "", "anything"])
def test_nothing_opens_the_door_when_no_token_is_set(bearer):
    assert verdict(caller(peer="192.168.1.7", bearer=bearer)) == "unauthorized"
    assert verdict(caller(forwarded=True, bearer=bearer), api_token="") == "unauthorized"


def test_token_may_be_any_text():
    as_header = "t\u00f6ken \u20ac".encode().decode("latin-1")
    assert verdict(caller(peer="192.168.1.7", bearer=as_header), api_token="t\u00f6ken \u20ac") == "ok"


def test_preflight_needs_no_token_but_the_right_origin():
    allowed = ("https://app.example",)
    asks = {"peer": "192.168.1.7", "preflight": True}
    assert verdict(caller(**asks, origin="https://app.example"), api_token="t", allow_origin=allowed) == "ok"
    assert verdict(caller(**asks, origin="https://evil.example"), api_token="t", allow_origin=allowed) == (
        "forbidden_origin"
    )
    assert verdict(caller(**asks, host="evil.example"), api_token="t") == "forbidden_host"


def test_host_is_looked_at_before_origin_and_token():
    assert verdict(caller(host="evil.example", origin="https://evil.example", peer="10.0.0.1")) == "forbidden_host"
    assert verdict(caller(origin="https://evil.example", peer="10.0.0.1")) == "forbidden_origin"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("localhost", True),
        ("128.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("LOCALHOST.evil.example", False),
        (None, False),
    ],
)
def test_loopback_is_told_by_address_or_by_its_one_name(address, expected):
    assert is_loopback(address) is expected


def test_host_name_has_neither_port_nor_brackets_nor_case():
    assert [host_name(host) for host in ("A.b:1", "[::1]:1", "[FE80::A]", "a_b-c")] == [
        "a.b",
        "::1",
        "fe80::a",
        "a_b-c",
    ]
