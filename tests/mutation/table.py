"""Which tests a mutant meets: by file, the quickest and sharpest first."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Final, NamedTuple

from tests.mutation.doors import every_case_comes_out_as_it_must
from tests.mutation.worlds import every_law_holds, prepare


class Judge(NamedTuple):
    """What looks at a file's mutants: test files, and before them perhaps a check that needs no test session.

    `prepare` is called once, before the first mutant, for what all of them are shown.
    """

    tests: tuple[str, ...]
    first: Callable[[], bool] | None = None
    prepare: Callable[[], None] | None = None


_ENGINE: Final = (
    "tests/unit/engine/test_evaluate.py",
    "tests/unit/engine/test_general.py",
    "tests/spec/test_casbin_examples.py",
    "tests/spec/test_divergences.py",
)


def _identity(*tests: str) -> Judge:
    return Judge(tuple(f"tests/{name}" for name in tests), every_case_comes_out_as_it_must)


TABLE: Final = MappingProxyType(
    {
        "pdp/engine/expression.py": Judge(
            (
                "tests/unit/engine/test_expression.py",
                "tests/unit/engine/test_casbin_text.py",
                *_ENGINE,
            )
        ),
        "pdp/engine/evaluate.py": Judge(_ENGINE, every_law_holds, prepare),
        "pdp/engine/index.py": Judge((*_ENGINE, "tests/spec/test_delta.py"), every_law_holds, prepare),
        "pdp/identity/gate.py": _identity("unit/identity/test_gate.py"),
        "pdp/identity/profiles.py": _identity(),
        "pdp/identity/keyset.py": _identity(
            "unit/identity/test_keyset.py", "unit/identity/test_rfc7520.py", "unit/identity/test_proof.py"
        ),
        "pdp/identity/signature.py": _identity("unit/identity/test_signature.py"),
        "pdp/identity/claims.py": _identity("unit/identity/test_claims.py", "unit/docs/test_identity_page.py"),
        "pdp/identity/proof.py": _identity("unit/identity/test_proof.py"),
        "pdp/identity/binding.py": _identity(),
        "pdp/identity/kubernetes.py": _identity("attacks/test_workload_tokens.py"),
        "pdp/identity/delegation.py": _identity(),
        "pdp/identity/spiffe.py": _identity("unit/identity/test_certificates.py"),
        "pdp/identity/certificates.py": _identity("unit/identity/test_certificates.py"),
        "pdp/identity/verifier.py": _identity(
            "unit/identity/test_verifier.py",
            "unit/identity/test_certificates.py",
            "unit/identity/test_claims.py",
            "attacks/test_workload_tokens.py",
            "unit/identity/test_introspection.py",
            "unit/service/test_authenticate.py",
            "unit/service/test_live.py",
        ),
        "pdp/identity/introspection.py": _identity("unit/identity/test_introspection.py"),
        "pdp/identity/sources.py": _identity("unit/identity/test_issuers.py", "unit/service/test_live.py"),
        "pdp/identity/issuers.py": _identity("unit/identity/test_issuers.py", "unit/adapters/test_trust_file.py"),
        "pdp/identity/challenge.py": _identity("unit/identity/test_challenge.py"),
        "pdp/service/authenticate.py": _identity(
            "unit/service/test_authenticate.py", "unit/service/test_live.py", "attacks/test_tokens.py"
        ),
        "pdp/service/live.py": _identity("unit/service/test_live.py"),
        "pdp/adapters/checked_http.py": Judge(
            ("tests/unit/adapters/test_keys_http.py", "tests/unit/adapters/test_live_http.py")
        ),
        "pdp/adapters/replay_memory.py": Judge(
            ("tests/unit/adapters/test_replay.py", "tests/unit/identity/test_proof.py")
        ),
        "pdp/adapters/replay_redis.py": Judge(("tests/unit/adapters/test_replay.py",)),
        "pdp/adapters/live_http.py": Judge(("tests/unit/adapters/test_live_http.py",)),
    }
)
"""The modules under mutation: those whose silent change would be an answer or an identity that is wrong."""
