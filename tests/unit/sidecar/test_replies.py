import json

import pytest

from pdp.errors import Reason
from sidecar.replies import Denial, denial, status_of


def test_every_reason_has_one_of_the_four_statuses_of_a_denial() -> None:
    assert {status_of(reason) for reason in Reason} <= {401, 403, 429, 503}
    assert status_of(Reason.GRANTED) == 503  # a "granted" denial is a defect of ours, never a 200


@pytest.mark.holds("N10", "adv_existence")
def test_unknown_and_forbidden_are_the_same_words() -> None:
    bodies = {
        denial(reason, "d1", reveal=False).body
        for reason in (Reason.NO_GRANT, Reason.ASSET_UNREGISTERED, Reason.LOCKED, Reason.UNMAPPED_ROUTE)
    }
    assert len(bodies) == 1


def test_a_development_installation_says_the_reason() -> None:
    assert json.loads(denial(Reason.LOCKED, "d1", reveal=True).body)["reason"] == "locked"


def test_a_refused_credential_is_told_why_and_how() -> None:
    refused = denial(Reason.TOKEN_EXPIRED, "d1", reveal=False)
    assert json.loads(refused.body)["reason"] == "token_expired"
    assert ("www-authenticate", 'Bearer error="invalid_token"') in refused.headers


@pytest.mark.parametrize("status", [0, 200, 204, 302, 400, 404, 500])
def test_no_other_status_can_be_made(status: int) -> None:
    with pytest.raises(ValueError, match="four statuses"):
        Denial(status=status, body=b"", headers=())
