"""The sources of the demonstration's world: the shipped policy pack with our people and assets, and the configuration.

The shipped pack stays as it is: `world/` replaces or adds files (who holds which role, which assets exist, which workload
stands in which segment), so that what the audience sees is the pack that everybody gets.
"""

import json
import shutil
from pathlib import Path
from typing import Final

from pdp.adapters.pack_files import STARTER
from pdp.demo.authority import TRUST_DOMAIN
from pdp.demo.story import DEV_MODEL, PROD_MODEL, SHADOW_MODEL
from pdp.identity.development import AUDIENCE, DEVELOPMENT_ISS, MAX_LIFETIME_S

OVERLAY: Final = Path(__file__).parent / "world"

SERVED: Final = {
    PROD_MODEL: {"resource": "endpoint/digits-prod", "model": "model/digits@1"},
    DEV_MODEL: {"resource": "endpoint/digits-dev", "model": "model/digits@1"},
    # Somebody deployed this one and told nobody: the gate knows where it is, the inventory does not know it.
    SHADOW_MODEL: {"resource": "endpoint/digits-shadow", "model": "model/digits@1"},
}


def write_pack(directory: Path) -> None:
    """Copy the shipped pack to `directory` and lay the demonstration's own files over it."""
    shutil.copytree(STARTER, directory)
    shutil.copytree(OVERLAY, directory, dirs_exist_ok=True)


def write_trust(path: Path, *, jwks: Path, ca: Path) -> None:
    """Write the issuer table: the development issuer for people, our authority for workloads."""
    issuer = {
        "iss": DEVELOPMENT_ISS,
        "profile": "at_jwt",
        "keys": {"file": str(jwks)},
        "algs": ["ES256"],
        "audiences": [AUDIENCE],
        "max_lifetime_s": MAX_LIFETIME_S,
        "kind": "user",
        "sub_pattern": rf"[a-z]+@{TRUST_DOMAIN.replace('.', '[.]')}",
        "group_claims": ["groups"],
    }
    trust = {"issuers": [issuer], "trust_domains": [{"domain": TRUST_DOMAIN, "ca": str(ca)}], "development": True}
    _write(path, trust)


def write_routes(path: Path) -> None:
    """Write which resource stands behind each served name, and the protocols the model server speaks."""
    _write(path, {"served": SERVED, "protocols": ["oip", "oip-grpc", "openai"]})


def _write(path: Path, value: object) -> None:
    # JSON is YAML: no second writer, and no quoting that YAML would read otherwise.
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
