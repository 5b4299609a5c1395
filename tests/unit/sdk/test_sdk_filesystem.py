import io
import json
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from pdp.errors import ConfigError, Reason
from pdp.model.decision import Obligation
from pdp.sdk import AccessDenied, BadQuestion
from pdp.sdk._decided_file import DecidedFile
from pdp.sdk.filesystem import DECIDED, DERIVED, METHODS, PdpFileSystem
from tests.support.granting import Granting

ALL = [f"dataset.{verb}" for verb in ("list", "read_metadata", "read", "write", "delete", "presign")]
SALES = "dataset/sales"


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake" / "sales"
    (root / "2026").mkdir(parents=True)
    (root / "a.csv").write_text("x\n1\n2\n")
    (root / "2026" / "b.csv").write_text("x\n3\n")
    (tmp_path / "lake" / "wages").mkdir()
    (tmp_path / "lake" / "wages" / "w.csv").write_text("secret\n")
    return tmp_path / "lake"


def opened(lake: Path, client: Granting, **options: Any) -> PdpFileSystem:
    mounts = {SALES: str(lake / "sales"), "dataset/hr/wages": str(lake / "wages")}
    return PdpFileSystem(**{"mounts": mounts, "client": client} | options)


@pytest.fixture
def everything() -> Granting:
    return Granting(ALL)


@pytest.fixture
def fs(lake: Path, everything: Granting) -> PdpFileSystem:
    return opened(lake, everything)


# Each primitive asks the question that it should.


def local_copy(fs: PdpFileSystem, tmp: Path) -> None:
    fs.get_file(f"{SALES}/a.csv", str(tmp / "copy"))


def upload(fs: PdpFileSystem, tmp: Path) -> None:
    (tmp / "up").write_text("up")
    fs.put_file(str(tmp / "up"), f"{SALES}/up")


READ, WRITE, LIST, INFO, DELETE = (
    "dataset.read",
    "dataset.write",
    "dataset.list",
    "dataset.read_metadata",
    "dataset.delete",
)
USES: list[tuple[Callable[[PdpFileSystem, Path], Any], set[str]]] = [
    (lambda fs, _: fs.ls(SALES), {LIST}),
    (lambda fs, _: fs.info(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.exists(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.isfile(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.isdir(SALES), {INFO}),
    (lambda fs, _: fs.created(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.modified(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.size(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.checksum(f"{SALES}/a.csv"), {INFO}),
    (lambda fs, _: fs.open(f"{SALES}/a.csv").read(), {READ}),
    (lambda fs, _: fs.open(f"{SALES}/a.csv", "rt").read(), {READ}),
    (lambda fs, _: fs.cat_file(f"{SALES}/a.csv"), {READ}),
    (lambda fs, _: fs.cat_ranges([f"{SALES}/a.csv"], [0], [1]), {READ}),
    (lambda fs, _: fs.head(f"{SALES}/a.csv"), {READ}),
    (local_copy, {READ}),
    (lambda fs, _: fs.glob(f"{SALES}/*.csv"), {LIST, INFO}),
    (lambda fs, _: fs.find(SALES), {LIST}),
    (lambda fs, _: fs.pipe_file(f"{SALES}/new", b"1"), {WRITE}),
    (lambda fs, _: fs.open(f"{SALES}/new", "wb").close(), {WRITE}),
    (lambda fs, _: fs.open(f"{SALES}/a.csv", "ab").close(), {WRITE}),
    (lambda fs, _: fs.open(f"{SALES}/a.csv", "r+b").close(), {READ, WRITE}),
    (upload, {WRITE}),
    (lambda fs, _: fs.touch(f"{SALES}/new"), {WRITE}),
    (lambda fs, _: fs.mkdir(f"{SALES}/dir"), {WRITE}),
    (lambda fs, _: fs.makedirs(f"{SALES}/dir/deep"), {WRITE}),
    (lambda fs, _: fs.cp_file(f"{SALES}/a.csv", f"{SALES}/c.csv"), {READ, WRITE}),
    (lambda fs, _: fs.mv(f"{SALES}/a.csv", f"{SALES}/c.csv"), {READ, WRITE, DELETE, INFO}),
    (lambda fs, _: fs.rm(f"{SALES}/a.csv"), {DELETE}),
    (lambda fs, _: fs.rm_file(f"{SALES}/a.csv"), {DELETE}),
]


@pytest.mark.parametrize(("use", "asked"), USES)
def test_what_a_use_asks_is_what_it_does(
    fs: PdpFileSystem, everything: Granting, tmp_path: Path, use: Callable[..., Any], asked: set[str]
) -> None:
    use(fs, tmp_path)
    assert set(everything.actions) == asked
    assert {question.resource for question in everything.asked} == {SALES}


def raise_first(told: Any) -> None:
    """Raise what `cat_ranges` returns in a list."""
    for item in told if isinstance(told, list) else ():
        if isinstance(item, Exception):
            raise item


@pytest.mark.parametrize(("use", "asked"), USES)
def test_each_right_that_a_use_asks_for_is_needed(
    lake: Path, tmp_path: Path, use: Callable[..., Any], asked: set[str]
) -> None:
    for missing in asked - (
        {INFO} if len(asked) > 1 else set()
    ):  # a tool's own look around may be answered by its base
        fs = opened(lake, Granting([action for action in ALL if action != missing]))
        with pytest.raises(PermissionError):
            raise_first(use(fs, tmp_path))


# Nothing of the base class gets by.


def test_every_public_method_of_the_base_classes_is_classified() -> None:
    public = {name for name in dir(AbstractFileSystem) if not name.startswith("_")}
    assert public == set(METHODS)
    assert not issubclass(PdpFileSystem, AsyncFileSystem), "its underscored twins would need a table of their own"


@pytest.mark.parametrize("name", [name for name, how in METHODS.items() if how == DECIDED])
def test_a_decided_method_is_our_own(name: str) -> None:
    assert name in vars(PdpFileSystem)


@pytest.mark.parametrize("name", [name for name, how in METHODS.items() if how == DERIVED])
def test_a_derived_method_is_the_base_classs_own(name: str) -> None:
    assert name not in vars(PdpFileSystem)


ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cat_ranges": ([f"{SALES}/a.csv"], [0], [1]),
    "copy": (f"{SALES}/a.csv", f"{SALES}/z.csv"),
    "cp": (f"{SALES}/a.csv", f"{SALES}/z.csv"),
    "cp_file": (f"{SALES}/a.csv", f"{SALES}/z.csv"),
    "move": (f"{SALES}/a.csv", f"{SALES}/z.csv"),
    "mv": (f"{SALES}/a.csv", f"{SALES}/z.csv"),
    "rename": (f"{SALES}/a.csv", f"{SALES}/z.csv"),
    "download": (f"{SALES}/a.csv", "{tmp}/got"),
    "get": (f"{SALES}/a.csv", "{tmp}/got"),
    "get_file": (f"{SALES}/a.csv", "{tmp}/got"),
    "put": ("{tmp}/mine", f"{SALES}/mine"),
    "put_file": ("{tmp}/mine", f"{SALES}/mine"),
    "upload": ("{tmp}/mine", f"{SALES}/mine"),
    "pipe": (f"{SALES}/n", b"1"),
    "pipe_file": (f"{SALES}/n", b"1"),
    "write_bytes": (f"{SALES}/n", b"1"),
    "write_text": (f"{SALES}/n", "1"),
    "read_block": (f"{SALES}/a.csv", 0, 1),
    "sizes": ([f"{SALES}/a.csv"],),
    "expand_path": (f"{SALES}/*.csv",),
    "glob": (f"{SALES}/*.csv",),
}


class Untouchable(LocalFileSystem):  # type: ignore[misc]
    """A local filesystem that may be configured, and not used."""

    cachable = False

    def __getattribute__(self, name: str) -> Any:
        if METHODS.get(name) in {DECIDED, DERIVED}:
            raise AssertionError(f"the inner filesystem's `{name}` was reached without a grant")
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", [name for name, how in METHODS.items() if how in {DECIDED, DERIVED}])
def test_denied_everything_no_method_reaches_the_inner_filesystem(lake: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").write_text("mine")
    fs = opened(lake, Granting([]))
    fs._reach = lambda place: (Untouchable(), f"/nowhere/{place.rest}")  # type: ignore[method-assign]
    given = ARGUMENTS.get(name, (f"{SALES}/a.csv",))
    arguments = [item.format(tmp=tmp_path) if isinstance(item, str) else item for item in given]
    before = sorted(path.name for path in lake.rglob("*"))
    try:
        told = getattr(fs, name)(*arguments)
        told = list(told) if isinstance(told, Iterator) else told
    except PermissionError:
        told = None
    if isinstance(told, dict | list):
        assert all(isinstance(item, PermissionError) or not item for item in (*told,)) or told in ([], {})
    assert sorted(path.name for path in lake.rglob("*")) == before
    assert not (tmp_path / "got").exists()


# Paths.


@pytest.mark.parametrize(
    "path",
    [
        "dataset/sales/../wages/w.csv",
        "dataset/sales/./a.csv",
        "dataset/sales//a.csv",
        "dataset/sales/a\\b",
        "dataset/sales/\x00",
    ],
)
def test_a_path_that_leaves_its_mount_is_refused(fs: PdpFileSystem, everything: Granting, path: str) -> None:
    with pytest.raises(BadQuestion):
        fs.open(f"pdp://{path}")
    assert not everything.asked


def test_a_mount_is_a_whole_segment(fs: PdpFileSystem) -> None:
    with pytest.raises(FileNotFoundError):
        fs.cat_file("dataset/sales2/a.csv")
    with pytest.raises(FileNotFoundError):
        fs.cat_file("dataset/hr/other/a.csv")


def test_the_longest_mount_wins(lake: Path) -> None:
    client = Granting(ALL)
    mounts = {SALES: str(lake / "sales"), "dataset/sales/2026": str(lake / "wages")}
    fs = PdpFileSystem(mounts=mounts, client=client)
    assert fs.cat_file("dataset/sales/2026/w.csv") == b"secret\n"
    assert client.asked[0].resource == "dataset/sales/2026"


def test_names_are_ours_and_not_the_inner_ones(fs: PdpFileSystem) -> None:
    assert sorted(fs.ls(f"pdp://{SALES}", detail=False)) == [f"{SALES}/2026", f"{SALES}/a.csv"]
    assert sorted(fs.find(SALES)) == [f"{SALES}/2026/b.csv", f"{SALES}/a.csv"]
    assert fs.info(f"{SALES}/a.csv")["name"] == f"{SALES}/a.csv"
    assert fs.glob("pdp://dataset/sales/**/*.csv") == [f"{SALES}/2026/b.csv", f"{SALES}/a.csv"]


def test_above_the_mounts_stands_what_may_be_listed(lake: Path) -> None:
    class Some(Granting):
        def check(self, action: str, resource: str, **circumstances: Any) -> Any:
            self.granted = ALL if resource == SALES else []
            return super().check(action, resource, **circumstances)

    fs = opened(lake, Some([]))
    assert fs.ls("", detail=False) == ["dataset"]
    assert fs.ls("dataset", detail=False) == [SALES]
    assert fs.ls("dataset/hr", detail=False) == []
    with pytest.raises(FileNotFoundError):
        fs.ls("dataset/nothing")


# Decisions.


def test_one_question_for_a_whole_prefix(fs: PdpFileSystem, everything: Granting) -> None:
    for _ in range(5):
        fs.cat_file(f"{SALES}/a.csv")
        fs.cat_file(f"{SALES}/2026/b.csv")
    assert everything.actions == [READ]


@pytest.mark.holds("K5")
def test_k5_a_new_world_is_asked_again(fs: PdpFileSystem, everything: Granting) -> None:
    fs.cat_file(f"{SALES}/a.csv")
    everything.world_seq = 8
    everything.granted = []
    with pytest.raises(AccessDenied):
        fs.cat_file(f"{SALES}/a.csv")


@pytest.mark.holds("K6")
def test_k6_clients_of_many_callers_are_asked_each_time(lake: Path) -> None:
    client = Granting(ALL, one_identity=False)
    fs = opened(lake, client)
    fs.cat_file(f"{SALES}/a.csv")
    fs.cat_file(f"{SALES}/a.csv")
    assert client.actions == [READ, READ]


@pytest.mark.holds("K6")
def test_k6_no_instance_is_shared(lake: Path) -> None:
    mounts = {SALES: str(lake / "sales")}
    one = fsspec.filesystem("pdp", mounts=mounts, client=Granting(ALL))
    other = fsspec.filesystem("pdp", mounts=mounts, client=Granting([]))
    assert one is not other
    with pytest.raises(AccessDenied):
        other.cat_file(f"{SALES}/a.csv")


def test_an_open_file_is_decided_again_when_its_decision_runs_out(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Granting(ALL, recheck_after_s=1.0)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with opened(lake, client).open(f"{SALES}/a.csv") as file:
        assert file.read(1) == b"x"
        client.granted = []
        assert file.read(1) == b"\n"
        now = 101.0
        with pytest.raises(AccessDenied):
            file.read(1)


def test_bytes_can_carry_out_no_mask_so_such_an_allow_is_refused(lake: Path) -> None:
    fs = opened(lake, Granting(ALL, obligations=(Obligation(name="deny_columns", value="x"),)))
    with pytest.raises(AccessDenied) as denied:
        fs.cat_file(f"{SALES}/a.csv")
    assert denied.value.reason is Reason.OBLIGATION_UNSUPPORTED


def test_the_purpose_goes_along(lake: Path) -> None:
    client = Granting(ALL)
    opened(lake, client, purpose="training").cat_file(f"{SALES}/a.csv")
    assert client.asked[0].attributes == {"request.purpose": "training"}


def test_a_deny_is_logged_with_its_decision_id(lake: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pdp.sdk"), pytest.raises(PermissionError):
        opened(lake, Granting([])).cat_file(f"{SALES}/a.csv")
    assert "decision d-1" in caplog.text


def test_a_deny_is_never_told_as_absence(lake: Path) -> None:
    fs = opened(lake, Granting([]))
    for look in (fs.exists, fs.isfile, fs.isdir, fs.lexists):
        with pytest.raises(AccessDenied):
            look(f"{SALES}/a.csv")


def test_a_models_files_are_downloaded_and_nothing_else(lake: Path) -> None:
    client = Granting(["model.download", "model.list", "model.read_metadata"])
    fs = PdpFileSystem(mounts={"model/fraud@7": str(lake / "sales")}, client=client)
    assert fs.cat_file("model/fraud@7/a.csv").startswith(b"x")
    assert client.asked[0].action == "model.download"
    with pytest.raises(BadQuestion, match="cannot be changed"):
        fs.pipe_file("model/fraud@7/a.csv", b"")


def test_a_snapshot_is_needed_where_a_mount_is_kept_by_snapshot(lake: Path) -> None:
    mounts = {SALES: {"url": f"{lake}/sales/{{snapshot}}"}}
    fs = PdpFileSystem(mounts=mounts, client=Granting(ALL), snapshot="2026")
    assert fs.cat_file(f"{SALES}/b.csv") == b"x\n3\n"
    with pytest.raises(BadQuestion, match="by snapshot"):
        PdpFileSystem(mounts=mounts, client=Granting(ALL)).cat_file(f"{SALES}/b.csv")
    with pytest.raises(BadQuestion, match="no snapshot"):
        PdpFileSystem(mounts=mounts, client=Granting(ALL), snapshot="../wages").cat_file(f"{SALES}/w.csv")


# Configuration.


def test_mounts_come_from_a_file(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mounts.json").write_text(json.dumps({SALES: str(lake / "sales")}))
    monkeypatch.setenv("PDP_MOUNTS", str(tmp_path / "mounts.json"))
    with fsspec.open(f"pdp://{SALES}/a.csv", "rt", client=Granting(ALL)) as file:
        assert file.read() == "x\n1\n2\n"


@pytest.mark.parametrize(
    ("mounts", "said"),
    [
        ({"sales": "/x"}, "is not"),
        ({"endpoint/x": "/x"}, "have files"),
        ({SALES: 7}, "write a URL"),
        ({SALES: {"url": "/x", "optoins": {}}}, "write a URL"),
        (None, "no mounts"),
    ],
)
def test_mounts_that_are_not_understood_are_refused(mounts: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDP_MOUNTS", raising=False)
    with pytest.raises(ConfigError, match=said):
        PdpFileSystem(mounts=mounts)


def test_asynchronous_is_refused(lake: Path) -> None:
    with pytest.raises(ConfigError, match="blocking"):
        opened(lake, Granting(ALL), asynchronous=True)


def test_a_pickled_filesystem_asks_by_its_own_process(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDP_SERVER", "127.0.0.1:1")
    fs = pickle.loads(pickle.dumps(PdpFileSystem(mounts={SALES: str(lake / "sales")})))  # noqa: S301 - our own
    client = fs._client()
    assert client.one_identity
    client.close()


def test_a_decided_file_is_a_file_to_the_library() -> None:
    file = io.TextIOWrapper(DecidedFile(io.BytesIO(b"a\nb\n"), lambda: 0.0, float("inf")))  # type: ignore[type-var]
    assert file.readlines() == ["a\n", "b\n"]
