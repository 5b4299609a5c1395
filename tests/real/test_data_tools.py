"""pandas, pyarrow, Hugging Face datasets and fsspec through `pdp://`, over local files and over a server that speaks S3."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real_server
pytest.importorskip("moto.server", reason="needs the environment of `make test-real`")
pd = pytest.importorskip("pandas")
datasets = pytest.importorskip("datasets")

import fsspec  # noqa: E402 - after the skips
import pyarrow.dataset as pad  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import s3fs  # noqa: E402
from moto.server import ThreadedMotoServer  # noqa: E402
from pyarrow.fs import FSSpecHandler, PyFileSystem  # noqa: E402

from pdp.sdk import AccessDenied, open_dataset  # noqa: E402
from pdp.sdk.filesystem import PdpFileSystem  # noqa: E402
from pdp.sdk.testing import PackClient, PackWorld  # noqa: E402
from tests.support.pdp import BOB  # noqa: E402
from tests.support.pdp_thread import ThreadedPdp, threaded_pdp  # noqa: E402

PACK = Path(__file__).parents[2] / "policies"
ROWS = "g, user:bob, role:data-scientist, dev"
ASSETS = {"dataset/sales": {"environment": "dev"}, "dataset/wages": {"environment": "prod"}}
FRAME = {"country": ["DE", "FR", "DE"], "amount": [1.5, 2.5, 3.5]}


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "k", "secret": "s", "client_kwargs": {"endpoint_url": f"http://{host}:{port}"}}
    s3fs.S3FileSystem(**options).mkdir("lake")
    yield options
    server.stop()


Mounts = dict[str, Any]


@pytest.fixture(params=["local", "s3"])
def mounts(request: pytest.FixtureRequest, tmp_path: Path) -> Mounts:
    """Put two datasets into a storage, and return where they are."""
    options: dict[str, Any] = {}
    if request.param == "s3":
        options = request.getfixturevalue("s3")
        base = f"s3://lake/{tmp_path.name}"
    else:
        base = str(tmp_path / "lake")
    frame = pd.DataFrame(FRAME)
    for name in ("sales", "wages"):
        filesystem, root = fsspec.core.url_to_fs(f"{base}/{name}", **options)
        filesystem.makedirs(root, exist_ok=True)
        frame.to_parquet(f"{base}/{name}/a.parquet", storage_options=options or None)
        frame.to_csv(f"{base}/{name}/a.csv", index=False, storage_options=options or None)
    return {f"dataset/{name}": {"url": f"{base}/{name}", "options": options} for name in ("sales", "wages")}


@pytest.fixture
def world() -> PackWorld:
    return PackWorld(PACK, rows=ROWS, assets=ASSETS)


@pytest.fixture
def options(world: PackWorld, mounts: Mounts) -> dict[str, Any]:
    return {"mounts": mounts, "client": world.client("user:bob")}


def test_pandas_reads_and_writes_what_is_granted(options: dict[str, Any], world: PackWorld) -> None:
    frame = pd.read_parquet("pdp://dataset/sales/a.parquet", storage_options=options)
    assert frame["amount"].tolist() == FRAME["amount"]
    assert pd.read_csv("pdp://dataset/sales/a.csv", storage_options=options)["country"].tolist() == FRAME["country"]
    with pytest.raises(PermissionError):
        frame.to_parquet("pdp://dataset/sales/new.parquet", storage_options=options)
    world.grant("p, role:data-scientist, dataset.write, dataset/**, dev, , , allow")
    frame.to_parquet("pdp://dataset/sales/new.parquet", storage_options=options)
    assert len(pd.read_parquet("pdp://dataset/sales/new.parquet", storage_options=options)) == 3


@pytest.mark.parametrize(
    "read",
    [
        lambda path, options: pd.read_parquet(f"{path}/a.parquet", storage_options=options),
        lambda path, options: pd.read_csv(f"{path}/a.csv", storage_options=options),
        lambda path, options: fsspec.open(f"{path}/a.csv", **options).open().read(),
    ],
)
def test_what_is_denied_is_a_permission_error(options: dict[str, Any], read: Callable[..., Any]) -> None:
    with pytest.raises(PermissionError):
        read("pdp://dataset/wages", options)


@pytest.mark.parametrize("wrapped", [False, True])
def test_pyarrow_scans_the_filesystem(options: dict[str, Any], wrapped: bool) -> None:  # noqa: FBT001 - a parameter
    plain = PdpFileSystem(**options)
    filesystem = PyFileSystem(FSSpecHandler(plain)) if wrapped else plain
    table = pad.dataset("dataset/sales/a.parquet", filesystem=filesystem, format="parquet").to_table()
    assert table["amount"].to_pylist() == FRAME["amount"]
    assert pq.read_table("dataset/sales/a.parquet", filesystem=filesystem).num_rows == 3
    with pytest.raises(OSError, match=r"denied|Permission"):
        pad.dataset("dataset/wages/a.parquet", filesystem=filesystem, format="parquet").to_table()


def test_fsspec_copies_and_globs(options: dict[str, Any], tmp_path: Path) -> None:
    filesystem = fsspec.filesystem("pdp", **options)
    assert filesystem.glob("dataset/sales/*.csv") == ["dataset/sales/a.csv"]
    filesystem.get("dataset/sales/a.csv", str(tmp_path / "a.csv"))
    assert (tmp_path / "a.csv").read_text().startswith("country")
    assert set(filesystem.cat(["dataset/sales/a.csv"])) == {"dataset/sales/a.csv"} or filesystem.cat(
        "dataset/sales/a.csv"
    )
    with pytest.raises(AccessDenied):
        filesystem.get("dataset/wages/a.csv", str(tmp_path / "w.csv"))
    assert not (tmp_path / "w.csv").exists()


def test_obligations_are_carried_out_over_this_storage(world: PackWorld, mounts: Mounts) -> None:
    world.revoke("p, role:data-scientist, dataset.list|read_metadata|read|snapshot, dataset/**, dev, , , allow")
    duties = 'row_filter={""type"":""eq"",""term"":""country"",""value"":""DE""}; deny_columns=country'
    world.grant(f'p, role:data-scientist, dataset.read, dataset/**, dev, , "{duties}", allow')
    sales = open_dataset("pdp://dataset/sales/a.parquet", client=world.client("user:bob"), mounts=mounts)
    assert sales.to_table().to_pydict() == {"amount": [1.5, 3.5]}
    with pytest.raises(PermissionError):
        pd.read_parquet(
            "pdp://dataset/sales/a.parquet", storage_options={"mounts": mounts, "client": world.client("user:bob")}
        )


# With everything from the environment, and a real PDP behind it.


@pytest.fixture(scope="module")
def pdp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedPdp]:
    with threaded_pdp(tmp_path_factory.mktemp("pdp")) as running:
        yield running


@pytest.fixture
def environment(pdp: ThreadedPdp, mounts: Mounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text(pdp.token(BOB))
    (tmp_path / "mounts.json").write_text(json.dumps(mounts))
    monkeypatch.setenv("PDP_SERVER", pdp.server)
    monkeypatch.setenv("PDP_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("PDP_MOUNTS", str(tmp_path / "mounts.json"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))


@pytest.mark.usefixtures("environment")
def test_datasets_streams_what_is_granted_and_nothing_else() -> None:
    def stream(name: str) -> list[Any]:
        files = f"pdp://dataset/{name}/a.parquet"
        found = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
        return [row["amount"] for row in found]

    assert stream("sales") == FRAME["amount"]
    # datasets turns a PermissionError into its own kind of absence; what matters is that nothing comes.
    with pytest.raises((PermissionError, FileNotFoundError, datasets.exceptions.DatasetNotFoundError)):
        stream("wages")


@pytest.mark.usefixtures("environment")
def test_pandas_needs_nothing_but_the_environment() -> None:
    assert len(pd.read_parquet("pdp://dataset/sales/a.parquet")) == 3
    with pytest.raises(AccessDenied, match="dataset/wages"):
        pd.read_parquet("pdp://dataset/wages/a.parquet")


def test_the_client_type_is_the_documented_one(world: PackWorld) -> None:
    assert isinstance(world.client("user:bob"), PackClient)
