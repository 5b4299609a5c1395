import pytest

from sidecar.target import BadTarget, Target, canonical

REFUSED = [
    "",
    "v2/models",
    "http://model/v2",
    "*",
    "//v2/models",
    "/v2//models",
    "/v2/models/",
    "/v2/./models",
    "/v2/../models",
    "/v2/%2e%2e/models",
    "/v2/%2E/models",
    "/v2%2Fmodels",
    "/v2%2fmodels",
    "/v2%5Cmodels",
    "/v2\\models",
    "/v2/%00",
    "/v2/%0d%0aset-cookie",
    "/v2/%7f",
    "/v2/%C0%AE%C0%AE/models",
    "/v2/%E0%80%AF",
    "/v2/%FF",
    "/v2/%ED%A0%80",
    "/v2/models;x=1",
    "/v2/models%3Bx",
    "/v2/a%3Fb",
    "/v2/a%23b",
    "/v2/a%25b",
    "/v2/%",
    "/v2/%2",
    "/v2/%zz",
    "/v2/fr%61ud",
    "/v2/caf%c3%a9",
    "/v2/cafe%CC%81",
    "/v2/%E2%80%8B",
    "/v2/%E2%80%AE",
    "/v2/%EF%BB%BFx",
    "/v2/%E2%80%A8",
    "/v2/a b",
    "/v2/a\tb",
    "/v2/a\r\nb",
    "/v2/caf\u00e9",
    "/v2#fragment",
    "/v2?a=%zz",
    "/v2?a#b",
    "/v2?a b",
    "/" + "a" * 8_192,
]


@pytest.mark.holds("N1", "N2", "N3", "adv_path", "adv_query_fragment")
@pytest.mark.parametrize("raw", REFUSED)
def test_a_second_spelling_is_refused_never_repaired(raw: str) -> None:
    assert isinstance(canonical(raw), BadTarget)


@pytest.mark.holds("N2")
@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        ("/", "/", ""),
        ("/v2/models/fraud/infer", "/v2/models/fraud/infer", ""),
        ("/v1/models/m:predict", "/v1/models/m:predict", ""),
        ("/v2/caf%C3%A9", "/v2/caf\u00e9", ""),
        ("/v2/a%20b", "/v2/a b", ""),
        ("/v2?a=b?c", "/v2", "a=b?c"),
        ("/" + "a" * 8_191, "/" + "a" * 8_191, ""),
    ],
)
def test_the_one_spelling_is_read_once(raw: str, path: str, query: str) -> None:
    assert canonical(raw) == Target(path=path, query=query)
