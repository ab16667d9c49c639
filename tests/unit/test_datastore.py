"""A datastore elsewhere: what is taken, what is refused without repeating it, and what Go makes of it."""

import string
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bake.datastore import ExternalDatastore
from firstboot.errors import UserError

pytestmark = pytest.mark.unit

POSTGRES = "postgres://k3s@10.0.0.9:5432/k3s"
MYSQL = "mysql://k3s@tcp(10.0.0.9:3306)/k3s"
PASSWORDS = st.text(min_size=1).filter(str.isprintable)


@pytest.mark.parametrize(
    ("url", "places"),
    [
        (POSTGRES, [("10.0.0.9", 5432)]),
        ("postgres://k3s@db.lan", [("db.lan", 5432)]),
        ("postgres://a%40b@[fd00::9]:6432/k3s?sslmode=disable", [("fd00::9", 6432)]),
        ("postgres://k3s@db/k3s?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem", [("db", 5432)]),
        (f"postgres://k3s@{'a' * 63}.lan/k3s", [(f"{'a' * 63}.lan", 5432)]),
        (MYSQL, [("10.0.0.9", 3306)]),
        ("mysql://k3s@cloud@tcp(db.lan)/?tls=skip-verify", [("db.lan", 3306)]),
        ("https://10.0.0.9:2379", [("10.0.0.9", 2379)]),
        ("https://a:2379,https://[fd00::9]:2380", [("a", 2379), ("fd00::9", 2380)]),
        ("http://a:2379,http://b:2379", [("a", 2379), ("b", 2379)]),
    ],
)
def test_what_is_taken_goes_through_as_it_is(url: str, places: list[tuple[str, int]]) -> None:
    found = ExternalDatastore(url)
    assert found.endpoint == url
    assert found.places == tuple(places)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgres://k3s:hunter2@10.0.0.9/k3s", "secrets do not belong in this file: use datastore_password"),
        ("mysql://k3s:hunter2@tcp(10.0.0.9:3306)/k3s", "secrets do not belong"),
        ("k3s:hunter2@tcp(10.0.0.9:3306)/k3s", "secrets do not belong"),
        ("https://k3s:hunter2@10.0.0.9:2379", "secrets do not belong"),
        ("redis://k3s:hunter2@10.0.0.9", "secrets do not belong"),
        ("postgres://k3s@10.0.0.9/k3s?password=hunter2", "secrets do not belong"),
        ("postgres://k3s@10.0.0.9/k3s?sslmode=require&sslpassword=hunter2", "secrets do not belong"),
        ("postgres://k3s@10.0.0.9/k3s?p%61ssword=hunter2", "secrets do not belong"),
        ("mysql://k3s@tcp(10.0.0.9)/k3s?%70asswd%3Dhunter2", "secrets do not belong"),
        ("https://hunter2@10.0.0.9:2379", "K3s shows etcd a certificate, no user"),
        ("nats://hunter2", "no datastore that K3s knows"),
        ("hunter2", "no datastore that K3s knows"),
        ("postgresql://hunter2@10.0.0.9/k3s", "no datastore's URL"),
        ("postgres://10.0.0.9/hunter2", "no datastore's URL"),
        ("postgres://hunter2 @10.0.0.9/k3s", "no datastore's URL"),
        ("postgres://hunter2%@10.0.0.9/k3s", "no datastore's URL"),
        ("postgres://hunter2@10.0.0.9,10.0.0.10/k3s", "no datastore's URL"),
        ("postgres://hunter2@10.0.0.9:0/k3s", "no port"),
        ("postgres://hunter2@10.0.0.9:65536/k3s", "no port"),
        ("postgres://hunter2@a..b/k3s", "no datastore's URL"),
        (f"https://hunter2.{'a' * 64}.lan:2379", "no datastore's URL"),
        ("mysql://hunter2@10.0.0.9:3306/k3s", "no datastore's URL"),
        ("mysql://hunter2@unix(/run/mysqld.sock)/k3s", "no datastore's URL"),
        ("mysql://k3s@tcp(10.0.0.9)/k3s?loc=hunter2/x", "no datastore's URL"),
        ("https://hunter2", "no datastore's URL"),
        ("https://a:2379,http://hunter2:2379", "no datastore's URL"),
    ],
)
def test_what_is_refused_is_not_repeated(url: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        ExternalDatastore(url)
    said = f"{caught.value.message} {caught.value.hint}"
    assert words in said
    assert "hunter2" not in said


@pytest.mark.parametrize("password", ["", "hunter2\n", "hunter2\0", "\ud800hunter2"])
def test_a_password_that_is_no_line_of_text(password: str) -> None:
    with pytest.raises(UserError, match="cannot be a datastore's password") as caught:
        ExternalDatastore(POSTGRES, password)
    assert "hunter2" not in caught.value.message


def test_etcd_takes_no_password() -> None:
    with pytest.raises(UserError, match="shows etcd a certificate, no password"):
        ExternalDatastore("https://10.0.0.9:2379", "hunter2")


@given(password=PASSWORDS)
def test_a_url_gives_back_every_password(password: str) -> None:
    datastore = ExternalDatastore(f"{POSTGRES}?sslmode=disable", password)
    found = urlsplit(datastore.endpoint)
    assert (found.username, unquote(found.password or "")) == ("k3s", password)
    assert (found.hostname, found.port, found.path, found.query) == (
        "10.0.0.9", 5432, "/k3s", "sslmode=disable",
    )  # fmt: skip
    assert set(found.password or "") <= set(string.ascii_letters + string.digits + "%-._~")


@given(password=PASSWORDS, user=st.text("abc@.-", min_size=1), query=st.sampled_from(["", "?tls=true"]))
def test_mysql_s_driver_gives_back_every_password(password: str, user: str, query: str) -> None:
    """Taken apart as ParseDSN of go-sql-driver/mysql does: last '/', last '@' before it, first ':'."""
    datastore = ExternalDatastore(f"mysql://{user}@tcp(10.0.0.9:3306)/k3s{query}", password)
    scheme, _, dsn = datastore.endpoint.partition("://")
    login_and_place, _, database = dsn.rpartition("/")
    login, _, place = login_and_place.rpartition("@")
    assert (scheme, *login.partition(":")) == ("mysql", user, ":", password)
    assert (place, database) == ("tcp(10.0.0.9:3306)", f"k3s{query}")


@given(
    url=st.text() | st.text("postgresmyhtc3:/@()?&=.,%19[]", min_size=8).map(lambda end: f"postgres://{end}")
)
def test_any_text_is_a_datastore_or_refused(url: str) -> None:
    try:
        found = ExternalDatastore(url)
    except UserError as error:
        assert "\n" not in error.message
    else:
        assert found.places
        assert all(host and 0 < port < 1 << 16 for host, port in found.places)


def test_the_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(ExternalDatastore(POSTGRES, "hunter2"))
