"""Http: resumed, tried again, verified, revalidated; what all remotes share is tested here too."""

from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest
from kaos_pipelines.fetch.cache import hash_of
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import FetchFailed

from kaos_formats.tree import TreeEntry, make_tree
from tests.support.webserver import WebServer
from tests.unit.pipelines.fetch.conftest import Fetching

OLD = "Sun, 06 Nov 1994 08:49:37 GMT"
LARGE = bytes(range(256)) * (3 << 12)


def failure(fetching: Fetching, *lines: dict[str, object], **settings: object) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        fetching(*lines, **settings)
    return caught.value


def test_the_bundle_is_that_which_a_deploy_of_the_files_would_make(
    fetching: Fetching, web: WebServer
) -> None:
    web.put("/a?b=c", b"hello")
    web.put("/ä", b"")
    tree = (
        fetching({"url": web.url("/a?b=c"), "path": "x/a.txt"}, {"url": web.url("/%C3%A4"), "path": "empty"})
        if web.pages.setdefault("/%C3%A4", web.pages["/ä"])
        else None
    )
    assert tree is not None
    assert fetching.files(tree) == {"x/a.txt": b"hello", "empty": b""}
    entries = [
        TreeEntry(e.path, e.size, "644", hash_of(fetching.out / tree.id / e.path)) for e in tree.entries
    ]
    assert make_tree(entries) == tree
    assert sorted(path.name for path in fetching.out.iterdir()) == sorted(
        [tree.id, f"{tree.id}.tree", f"{tree.id}.sources"]
    )
    said = fetching.sources(tree)[1]
    assert (said.path, said.size, said.etag) == ("x/a.txt", 5, web.pages["/a?b=c"].tag())


def test_names_that_pfs_cannot_hold_are_escaped_where_the_worker_does_not(
    fetching: Fetching, web: WebServer
) -> None:
    web.put("/a", b"a")
    lines = ({"url": web.url("/a"), "path": "my data (1)/ü.csv"}, {"url": web.url("/a"), "path": "plain"})
    tree = fetching(*lines)
    folder = fetching.out / tree.id
    stored = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert stored == {"my data %281%29/%c3%bc.csv", "plain", ".kaos-names"}
    fetching.any_name = True
    assert fetching(*lines) == tree
    assert fetching.file("my data (1)/ü.csv", tree) == b"a"


@pytest.mark.parametrize("marks", [{}, {"etag": 'W/"1"'}, {"etag": None, "last_modified": OLD}])
def test_what_a_server_says_is_unchanged_is_not_sent_again(
    fetching: Fetching, web: WebServer, marks: dict[str, str | None]
) -> None:
    page = web.put("/a", LARGE, **marks)
    line = {"url": web.url("/a"), "path": "a"}
    tree = fetching(line)
    sent = web.sent
    assert fetching(line) == tree
    assert (fetching.file("a", tree), web.sent) == (LARGE, sent)
    page.body += b"more"
    page.etag, page.last_modified = (
        page.etag and '"2"',
        page.last_modified and "Mon, 07 Nov 1994 08:49:37 GMT",
    )
    assert fetching.file("a", fetching(line)) == LARGE + b"more"


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_cache_that_is_damaged_is_noticed(fetching: Fetching, web: WebServer, damage: str) -> None:
    web.put("/a", LARGE)
    line = {"url": web.url("/a"), "path": "a"}
    fetching(line)
    (content,) = (fetching.cache / "contents").glob("??/*")
    content.unlink()
    if damage == "changed":
        content.write_bytes(LARGE[::-1])
    assert fetching.file("a", fetching(line)) == LARGE
    (fetching.cache / "index.sqlite").write_bytes(b"no database" * 1000)
    assert fetching.file("a", fetching(line)) == LARGE


def starts(web: WebServer, path: str) -> list[int]:
    """From which byte on a path was asked for, each time."""
    ranges = [one.headers.get("Range", "bytes=0-") for one in web.asked(path)]
    return [int(one.removeprefix("bytes=").removesuffix("-")) for one in ranges]


# What a client has not read yet of what has come when a connection breaks.
UNREAD = 1 << 20


def test_what_breaks_off_goes_on_where_it_stopped(fetching: Fetching, web: WebServer) -> None:
    page = web.put("/a", LARGE, cuts=[2_000_000, 900_000])
    assert fetching.file("a", fetching({"url": web.url("/a"), "path": "a"})) == LARGE
    first, second, third = starts(web, "/a")
    assert first == 0
    assert 2_000_000 - UNREAD < second <= 2_000_000
    assert second + 900_000 - UNREAD < third <= second + 900_000
    assert web.asked("/a")[1].headers["If-Range"] == page.tag()


def test_a_fetch_that_failed_goes_on_in_the_next_one(fetching: Fetching, web: WebServer) -> None:
    web.put("/a", LARGE, cuts=[2_500_000, 10, 10, 10])
    line = {"url": web.url("/a"), "path": "a", "sha256": hashlib.sha256(LARGE).hexdigest()}
    assert "broke off" in str(failure(fetching, line))
    assert fetching.file("a", fetching(line)) == LARGE
    assert starts(web, "/a")[-1] > 2_500_000 - UNREAD


@pytest.mark.parametrize("how", ["another tag", "no ranges", "another part", "no marks"])
def test_parts_of_two_contents_are_never_put_together(fetching: Fetching, web: WebServer, how: str) -> None:
    page = web.put("/a", b"x" * len(LARGE), cuts=[2_000_000, 0, 0], etag=None if how == "no marks" else '"1"')
    line = {"url": web.url("/a"), "path": "a"}
    failure(fetching, line, tries=1)
    page.body, page.cuts = LARGE, []
    if how == "another tag":
        page.etag = '"2"'
    page.ranges = how != "no ranges"
    page.range_start = 5 if how == "another part" else None
    assert fetching.file("a", fetching(line)) == LARGE


def test_a_first_part_that_was_another_contents_is_found_by_the_checksum(
    fetching: Fetching, web: WebServer
) -> None:
    page = web.put("/a", b"x" * len(LARGE), cuts=[2_000_000], etag='"lies"')
    line = {"url": web.url("/a"), "path": "a", "sha256": hashlib.sha256(LARGE).hexdigest()}
    failure(fetching, line, tries=1)
    page.body = LARGE
    assert fetching.file("a", fetching(line)) == LARGE
    first, second, third = starts(web, "/a")
    assert first == third == 0 < second


@pytest.mark.parametrize("chunked", [False, True])
def test_errors_that_pass_are_waited_for(fetching: Fetching, web: WebServer, chunked: bool) -> None:
    web.put("/a", LARGE, statuses=[503, 429], headers={"Retry-After": "0"}, chunked=chunked)
    assert fetching.file("a", fetching({"url": web.url("/a"), "path": "a"})) == LARGE
    assert len(web.asked("/a")) == 3


@pytest.mark.parametrize(
    ("page", "line", "why"),
    [
        ({"statuses": [404]}, {}, "status 404"),
        ({"statuses": [403]}, {}, "status 403 Forbidden; give credentials"),
        ({"statuses": [500] * 3}, {}, "status 500"),
        ({"statuses": [418]}, {}, "status 418"),
        ({"length": 9}, {}, "broke off"),
        ({"chunked": True, "cuts": [3] * 3, "ranges": False}, {}, "broke off"),
        ({}, {"size": 6}, "has 5 bytes, not 6"),
        ({"chunked": True}, {"size": 4}, "sends more than the 4 bytes"),
        ({"chunked": True, "ranges": False}, {"size": 6}, "ended after 5 of 6 bytes"),
        ({}, {"sha256": "ab" * 32}, "its sha256 is 2cf24dba"),
        (
            {"headers": {"Repr-Digest": f"sha-256=:{b64encode(bytes(32)).decode()}:"}},
            {},
            "the server says 0000",
        ),
        (
            {"headers": {"x-goog-hash": f"crc32c=AAAAAA==,md5={b64encode(bytes(16)).decode()}"}},
            {},
            "its md5 is",
        ),
        ({"statuses": [302], "headers": {"Location": "file:///etc/passwd"}}, {}, "not http"),
        ({"statuses": [302] * 20, "headers": {"Location": "/a?token=secret"}}, {}, "more than 10 redirects"),
        ({"statuses": [302], "headers": {"Location": "http://x:y@127.0.0.1/"}}, {}, "a user and password"),
    ],
)
def test_what_is_not_the_content_is_refused(
    fetching: Fetching, web: WebServer, page: dict[str, object], line: dict[str, object], why: str
) -> None:
    web.put("/a?token=secret", b"hello", **page)
    error = failure(fetching, {"url": web.url("/a?token=secret"), "path": "a"} | line)
    assert why in str(error)
    assert "secret" not in str(error)


def test_a_body_that_trickles_or_stops_is_given_up(fetching: Fetching, web: WebServer) -> None:
    web.put("/slow", b"x" * 100, hold_at=10)
    line = {"url": web.url("/slow"), "path": "a"}
    assert "silent for too long" in str(failure(fetching, line, silence_s=0.05, tries=1))
    web.put("/drip", b"x" * (3 << 20))
    line = {"url": web.url("/drip"), "path": "a"}
    assert "bytes a second" in str(failure(fetching, line, window_s=0.0, slowest=1 << 50, tries=1))


def test_all_bad_lines_are_told_by_number_and_nothing_is_put_out(fetching: Fetching, web: WebServer) -> None:
    for number in range(1, 30):
        web.put(f"/{number}", b"x", statuses=[404] if number in (3, 4, 5, 17) else [])
    lines = [{"url": web.url(f"/{number}"), "path": f"{number}"} for number in range(1, 30)]
    error = failure(fetching, *lines)
    assert sorted(error.problems) == [3, 4, 5, 17]
    assert str(error).startswith(
        "4 of 29 line(s) of the manifest cannot be fetched: 3-5, 17; line 3: http://127"
    )
    assert not list(fetching.out.iterdir())


def test_redirects_are_followed_and_credentials_stay_with_their_host(
    fetching: Fetching, web: WebServer
) -> None:
    web.put("/there", b"hello")
    web.put("/a", statuses=[302], headers={"Location": web.url("/there", "localhost")})
    fetching.credentials = Credentials({"127.0.0.1": ("ada", "pässword")})
    assert fetching.file("a", fetching({"url": web.url("/a"), "path": "a"})) == b"hello"
    assert (
        web.asked("/a")[0].headers["Authorization"] == "Basic " + b64encode("ada:pässword".encode()).decode()
    )
    assert "Authorization" not in web.asked("/there")[0].headers


def test_one_url_is_asked_once_for_all_its_lines(fetching: Fetching, web: WebServer) -> None:
    web.put("/a", LARGE)
    tree = fetching(*({"url": web.url("/a"), "path": f"{n}/a"} for n in range(20)))
    assert set(fetching.files(tree).values()) == {LARGE}
    assert len(web.asked("/a")) == 1


def test_the_cache_gives_up_what_was_used_least_recently(fetching: Fetching, web: WebServer) -> None:
    for name in "abc":
        web.put(f"/{name}", name.encode() * 1000)
    for name in "abac":
        fetching({"url": web.url(f"/{name}"), "path": name}, cache_bytes=2500)
    for name in "acb":
        fetching({"url": web.url(f"/{name}"), "path": name}, cache_bytes=2500)
    assert web.sent == 4 * 1000


def test_a_cache_that_goes_away_meanwhile_costs_a_try(fetching: Fetching, web: WebServer) -> None:
    import shutil
    import threading

    page = web.put("/a", LARGE, hold_at=1 << 20)

    def remove() -> None:
        page.reached.wait()
        shutil.rmtree(fetching.cache)
        page.held.set()

    thread = threading.Thread(target=remove)
    thread.start()
    assert fetching.file("a", fetching({"url": web.url("/a"), "path": "a"})) == LARGE
    thread.join()
