"""The roots of bulk runs: what lies within is admitted, nothing else is, however it is spelled."""

import os
import posixpath
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from colorize.errors import ConfigError
from colorize.serve.roots import OutsideError, Roots


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """roots a and c beside ab and secret, with links that lead in and out."""
    top = tmp_path_factory.mktemp("tree").resolve()
    for folder in ("a/x/y", "a/ü scans", "ab/x", "secret/x", "c"):
        (top / folder).mkdir(parents=True)
    (top / "a" / "out").symlink_to(top / "secret")
    (top / "a" / "up").symlink_to("..")
    (top / "a" / "sideways").symlink_to(top / "ab")
    (top / "a" / "home").symlink_to("x")
    (top / "a" / "other root").symlink_to(top / "c")
    (top / "a" / "dangling").symlink_to(top / "secret" / "none")
    (top / "a" / "loop").symlink_to("loop")
    (top / "ab" / "in").symlink_to(top / "a" / "x")
    (top / "named").symlink_to(top / "a")
    return top


def inside(path: str, *roots: Path) -> bool:
    real = os.path.realpath(path)
    return any(os.path.commonpath([real, root]) == str(root) for root in roots)


@pytest.mark.parametrize(
    ("name", "leads_to"),
    [
        ("a", "a"), ("a/", "a"), ("a/x", "a/x"), ("a/x/y/new/newer", "a/x/y/new/newer"), ("a/ü scans", "a/ü scans"), ("a/home/y", "a/x/y"),
        ("a/other root/new", "c/new"), ("ab/in/y", "a/x/y"), ("a/sideways/in", "a/x"), ("a/out/../x", None),
        ("a/..", None), ("a/../a/x", None),
        ("ab", None), ("a b", None), ("", None), ("secret", None), ("a/out", None), ("a/out/x", None), ("a/out/new", None), ("a/up", None),
        ("a/up/secret", None), ("a/sideways", None), ("a/dangling", None), ("a/loop", None), ("a/loop/x", None), ("a//x", None),
        ("a/./x", None), ("a/...", None), ("a/‥/x", None), ("a/․․/secret", None), ("a／..／secret", None), ("a/x\n", None), ("a/ /x", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_path_is_admitted_where_it_leads_into_a_root(tree: Path, prefix: str, name: str, leads_to: str | None) -> None:
    roots = Roots([str(tree / "a"), str(tree / "c")])
    spec = f"{prefix}{tree}/{name}"
    if leads_to is None:
        with pytest.raises(OutsideError) as raised:
            roots.admit(spec)
        assert "\n" not in str(raised.value)
    else:
        assert roots.admit(spec).opened == str(tree / leads_to)


def test_a_root_that_is_a_link_is_where_it_leads(tree: Path) -> None:
    roots = Roots([str(tree / "named")])
    assert roots.admit(str(tree / "named" / "x")).opened == str(tree / "a" / "x")
    assert roots.admit(str(tree / "a" / "x")).opened == str(tree / "a" / "x")


def test_what_is_refused_says_nothing_of_what_is_there(tree: Path) -> None:
    roots = Roots([str(tree / "a")])
    told = set()
    for name in ("secret/x", "secret/no", "a/out", "a/dangling"):
        with pytest.raises(OutsideError) as raised:
            roots.admit(f"{tree}/{name}")
        told.add(str(raised.value).replace(name, "…"))
    assert len(told) == 1


@pytest.mark.parametrize(
    "spec",
    ["", "x", "./x", "~/x", "~root/x", "C:\\x", "{root}\0", "FILE://{root}", "file:{root}", "file:/{root}", "file://localhost{root}",
     "file://{root}?x", "file://{root}#x", "file:///%2e%2e", "local://{root}", "memory://{root}", "zip://x::file://{root}", "//{root}",
     "s3://bucket", "{root}/" + "x" * 4096],
)  # fmt: skip
def test_other_spellings_are_refused(tree: Path, spec: str) -> None:
    with pytest.raises(OutsideError):
        Roots([str(tree / "a")]).admit(spec.replace("{root}", str(tree / "a")))


def test_without_roots_nothing_is_admitted(tree: Path) -> None:
    roots = Roots([])
    assert not roots
    for spec in (str(tree), "/", "s3://bucket/x"):
        with pytest.raises(OutsideError):
            roots.admit(spec)


_NAMES = ["a", "ab", "x", "y", "out", "up", "sideways", "home", "dangling", "loop", "in", "secret", "named", "c", "new", "..", ".", "",
          "%2e%2e",          "․․", "～", "a\\..", "..\\", " ", "%2f", "other root"]  # fmt: skip
_PIECES = st.lists(st.sampled_from(_NAMES) | st.text(max_size=3), max_size=7)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_PIECES, st.sampled_from(["", "file://", "file:", "/"]), st.sampled_from(["/", "//", "/./", "\\"]))
@example(["a", "out"], "", "/")
def test_no_path_escapes(tree: Path, pieces: list[str], prefix: str, slash: str) -> None:
    roots = Roots([str(tree / "a"), str(tree / "c")])
    spec = prefix + slash.join([str(tree), *pieces])
    try:
        admitted = roots.admit(spec)
    except OutsideError:
        return
    assert inside(admitted.opened, tree / "a", tree / "c")
    assert inside(spec.removeprefix("file://"), tree / "a", tree / "c"), "and so does what the client meant"
    assert os.path.realpath(admitted.opened) == admitted.opened


@given(st.lists(st.from_regex(r"[A-Za-z0-9_ äß-]{1,8}", fullmatch=True).filter(str.strip), min_size=1, max_size=4))
def test_every_plain_name_within_is_admitted(tree: Path, names: list[str]) -> None:
    below = "/".join(["x", "y", "new", *names])
    assert Roots([str(tree / "a")]).admit(f"{tree}/a/{below}").opened == f"{tree}/a/{below}"
    assert Roots(["s3://bucket/a"]).admit(f"s3://bucket/a/{below}").opened == f"s3://bucket/a/{below}"


# URLs


@pytest.mark.parametrize(
    ("spec", "opened"),
    [
        ("s3://bucket/scans", "s3://bucket/scans?region=eu"),
        ("s3://bucket/scans/", "s3://bucket/scans?region=eu"),
        ("s3://bucket/scans/ü 1936", "s3://bucket/scans/ü 1936?region=eu"),
        ("gs://other", "gs://other"),
        ("gs://other/x", "gs://other/x"),
        ("s3://bucket", None),
        ("s3://bucket/scans-2", None),
        ("s3://bucket/scan", None),
        ("s3://bucket2/scans", None),
        ("S3://bucket/scans", None),
        ("s3://BUCKET/scans", None),
        ("s3://bucket/scans/../x", None),
        ("s3://bucket/x/../scans", None),
        ("s3://bucket/scans/%2e%2e/x", None),
        ("s3://bucket/scans%2f..%2fx", None),
        ("s3://bucket//scans", None),
        ("s3://bucket/scans//x", None),
        ("s3://bucket/scans/x?a=b", None),
        ("s3://bucket/scans?endpoint_override=evil", None),
        ("s3://bucket/scans#x", None),
        ("s3://me:word@bucket/scans", None),
        ("s3://bucket@evil/scans", None),
        ("s3://evil\\bucket/scans", None),
        ("s3://evil?/bucket/scans", None),
        ("s3:///bucket/scans", None),
        ("s3://bucket/scans/::file:///etc", None),
        ("gs://other/x::file:///etc", None),
        ("simplecache::gs://other/x", None),
        ("gs://other/x::memory", None),
        ("s3a://bucket/scans", None),
        ("s3://bucket／scans", None),
        ("s3://bucket/scans/․․/x", None),
        ("gs:/other/x", None),
        ("//bucket/scans", None),
        ("gs://other/.", None),
    ],
)
def test_a_url_is_admitted_in_its_one_spelling(spec: str, opened: str | None) -> None:
    roots = Roots(["s3://bucket/scans?region=eu", "gs://other"])
    if opened is None:
        with pytest.raises(OutsideError) as raised:
            roots.admit(spec)
        assert "word" not in str(raised.value)
    else:
        admitted = roots.admit(spec)
        assert (admitted.opened, "?" in admitted.shown) == (opened, False)


_URL_NAMES = [
    "scans",
    "scans2",
    "bucket",
    "..",
    ".",
    "",
    "%2e%2e",
    "%252e%252e",
    "%2f",
    "x",
    "?",
    "#",
    "@",
    "::",
    "://",
    "․․",
    "\\",
    "me:w@bucket",
    "file:",
]


@settings(max_examples=500)
@given(
    st.sampled_from(["s3://", "S3://", "s3:", "file://", "s3:///", "x::s3://"]),
    st.lists(st.sampled_from(_URL_NAMES) | st.text(max_size=2), max_size=7),
)
def test_no_url_escapes(scheme: str, pieces: list[str]) -> None:
    try:
        admitted = Roots(["s3://bucket/scans"]).admit(scheme + "/".join(pieces))
    except OutsideError:
        return
    assert admitted.opened.startswith("s3://bucket/")
    path = admitted.opened.removeprefix("s3://")
    for _ in range(3):  # however often, and in whatever way, what opens it takes it for more than it is
        assert posixpath.normpath(path) == path
        assert path == "bucket/scans" or path.startswith("bucket/scans/")
        path = unicodedata.normalize("NFKC", unquote(path))


@pytest.mark.parametrize(
    "spec", ["", "/", "//", "relative", "file:///", "s3://", "s3://me:word@bucket/x", "s3://bucket/../x", "/a/../b", "/a\nb"]
)
def test_roots_that_make_no_sense_are_refused_at_the_start(spec: str) -> None:
    with pytest.raises(ConfigError, match=r"^archive_roots: ") as raised:
        Roots([spec])
    assert "word" not in str(raised.value)


def test_a_key_in_a_url_is_refused_with_the_way_out() -> None:
    with pytest.raises(OutsideError, match="credentials come from the environment"):
        Roots(["s3://bucket"]).admit("s3://me:word@bucket/x")
