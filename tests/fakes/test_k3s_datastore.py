"""The stand-in keeps its bootstrap data where K3s does, in a real database, and says what K3s says of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from rig.databases import MariaDb, Postgres, running
from test_k3s_stand_in import Master

pytestmark = pytest.mark.node

PASSWORD = "p@ss:w/rd%40?#x&longer"


@pytest.fixture(params=[Postgres, MariaDb])
def database(request: pytest.FixtureRequest) -> Iterator[Postgres | MariaDb]:
    if os.geteuid() != 0:
        pytest.skip("NOT TRIED: a server is started as its own user, which takes root")
    with running(request.param, PASSWORD) as database:
        yield database


@pytest.fixture
def masters(tmp_path: Path) -> Iterator[list[Master]]:
    made = [Master(tmp_path / name) for name in ("first", "second", "third")]
    for one in made:
        one.root.mkdir()
    yield made
    for one in made:
        if one.alive:
            one.stop()


def endpoint(database: Postgres | MariaDb, password: str) -> str:
    user, _, place = database.url.rpartition("@")
    return f"{user}:{quote(password, safe='') if user.startswith('postgres') else password}@{place}"


def test_masters_of_one_token_share_what_is_in_the_database(
    database: Postgres | MariaDb, masters: list[Master]
) -> None:
    first, second, third = masters
    first.serve(datastore_endpoint=endpoint(database, PASSWORD))
    assert [name.startswith("/bootstrap/") for name in database.kept()] == [True]
    second.serve(
        datastore_endpoint=endpoint(database, PASSWORD), token=first.token("token"), server=first.url
    )
    assert second.fetch("/cacerts") == first.fetch("/cacerts")
    third.configure(datastore_endpoint=endpoint(database, PASSWORD), token="another")
    third.start("server")
    third.logs("bootstrap data already found and encrypted with different token")
    assert third.process
    assert third.process.wait(10) == 1
    assert len(database.kept()) == 1
    first.stop()
    first.serve(datastore_endpoint=endpoint(database, PASSWORD))
    assert "different token" not in first.log()


def test_a_wrong_password_and_a_server_that_is_not_there(
    database: Postgres | MariaDb, masters: list[Master]
) -> None:
    first, *_ = masters
    first.configure(bind_address="127.0.0.1", datastore_endpoint=endpoint(database, "wr0ng"))
    first.start("server")
    first.logs("building kine")
    assert "password authentication failed" in first.log() or "Access denied for user" in first.log()
    assert first.process
    assert first.process.wait(10) == 1
    database.stop()
    first.start("server")
    first.logs("building kine", times=2)
    assert first.process.wait(10) == 1
    assert "wr0ng" not in first.log()
