"""Writes the golden matrix of the shipped pack anew: `python -m tests.unit.engine.golden`."""

from pdp.engine.matrix import matrix
from pdp.engine.pack import Pack, load_pack
from tests.unit.engine.conftest import POLICIES


def main() -> None:
    files = {path.relative_to(POLICIES).as_posix(): path.read_bytes() for path in POLICIES.rglob("*") if path.is_file()}
    pack = load_pack(files)
    if not isinstance(pack, Pack):
        raise SystemExit("\n".join(str(item) for item in pack))
    (POLICIES / "golden" / "matrix.txt").write_text(matrix(pack.snapshot), encoding="utf-8")


if __name__ == "__main__":
    main()
