"""The corpus of request targets: what has fooled proxies and servers into disagreeing on a path, around one real route.

Source: FAILURE.md N1-N3, `adv_path`, `adv_query_fragment`; the advisories named there.
"""

from collections.abc import Iterator

ROUTE = "/v2/models/fraud/infer"
SECRET = "/v2/models/other/infer"
_DOTS = (
    *("..", ".", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%2e", "%252e%252e", "..%00", "..;", "..;/", "%c0%ae%c0%ae"),
    *(
        "%e0%80%ae",
        "%u002e%u002e",
        "\u2024\u2024",
        "\uff0e\uff0e",
        "..%20",
        "%20..",
        "..%09",
        "...",
        "%2e%2e%2f",
        "..%5c",
        "..\\",
    ),
)
_SLASHES = (
    *(
        "//",
        "%2f",
        "%2F",
        "%252f",
        "\\",
        "%5c",
        "%5C",
        "/./",
        "/%2e/",
        ";/",
        "/;/",
        "%00/",
        "\uff0f",
        "\u2215",
        "%c0%af",
        "%ef%bc%8f",
    ),
    *("/%20/", "/\t/", "%0d%0a", "%0a", "%0d", "///", "/.//", "%2f%2f", "/%09/"),
)
_LETTERS = (
    *("fr%61ud", "FRAUD", "Fraud", "fraud%20", "fraud%00", "fraud%0a", "fraud.", "fraud;v=1", "fraud:1", "fraud,other"),
    *(
        "fra%75d",
        "fr\u0430ud",
        "fraud\u200b",
        "fraud%E2%80%8B",
        "%66raud",
        "fraud%2Cother",
        "fraud*",
        "fraud%25",
        "fraud+",
    ),
    *(
        "fraud%ff",
        "fraud%C3%28",
        "fra\u0308ud",
        "fraud%",
        "fraud%4",
        "fraud%zz",
        "fraud&x=1",
        "fraud=",
        "@fraud",
        "fr%c0%a1ud",
    ),
)
_TAILS = (
    *(
        "?",
        "?model=other",
        "?a=b&a=c",
        "%3F",
        "%3fmodel=other",
        "#x",
        "%23x",
        "#",
        "?#",
        "?x#y",
        ";",
        ";x=y",
        ";/../other",
    ),
    *(
        "/",
        "//",
        "/.",
        "/..",
        "/%2e",
        "/%2e%2e/other",
        "\\",
        "%5c",
        "%20",
        "%00",
        "%0d%0aX: y",
        ".json",
        "~",
        "%7e",
        "*",
        "'",
        '"',
    ),
    *(
        "<",
        "%3c",
        "|",
        "^",
        "`",
        "{",
        "}",
        "%7b",
        "[",
        "]",
        "%5b",
        "\x7f",
        "%7f",
        "\x80",
        "\xff",
        "%80",
        "%f0%9f%98%80",
        "!",
        "$",
        "(",
    ),
)
_WHOLE = (
    *(
        "",
        "*",
        "/",
        "//",
        "v2/models/fraud/infer",
        "http://model/v2/models/fraud/infer",
        "HTTP://MODEL/v2/models/fraud/infer",
    ),
    *(
        "//model/v2/models/fraud/infer",
        "///v2/models/fraud/infer",
        "http://model:80/../v2/models/fraud/infer",
        "model:443",
    ),
    *(
        "http://other@model/v2/models/fraud/infer",
        "/V2/models/fraud/infer",
        "/v2/MODELS/fraud/infer",
        "/v2/models/fraud/INFER",
    ),
    *("/v2/models/other/../fraud/infer", "/v2/models/fraud/../other/infer", "/v2/models/other/infer/../../fraud/infer"),
    *(
        "/demo/../v2/models/fraud/infer",
        "/v2/models/fraud/infer/../../../..",
        "/%76%32/models/fraud/infer",
        "/.%2e/v2/models/fraud/infer",
    ),
    *(
        "/v2/models/fraud/versions/12/infer",
        "/v2/models/fraud/versions/13/infer",
        "/v2/models/fraud/versions/012/infer",
    ),
    *(
        "/v2/models/fraud/versions/12/../13/infer",
        "/v2/models/fraud/versions//infer",
        "/v2/models//infer",
        "/v2/models/fraud",
    ),
    *(
        "/inference.GRPCInferenceService/ModelInfer",
        "/v2/models/fraud/inferx",
        "/v1/models/fraud:predict",
        "/metrics",
    ),
    "/" + "a/" * 3_000,
    ROUTE + "?" + "a" * 9_000,
)


def corpus() -> Iterator[str]:
    """Yield each target once, as it stands on the request line (its characters are bytes, latin-1)."""
    seen: set[str] = set()
    for target in _all():
        raw = target.encode("utf-8").decode("latin-1")
        if (
            raw not in seen and " " not in raw and "\t" not in raw
        ):  # those would be another request line, not another target
            seen.add(raw)
            yield raw


def _all() -> Iterator[str]:
    yield ROUTE
    for dots in _DOTS:
        yield f"/v2/models/other/{dots}/fraud/infer"
        yield f"/v2/models/{dots}/models/fraud/infer"
        yield f"/{dots}{ROUTE}"
    for slash in _SLASHES:
        yield f"/v2/models/fraud{slash}infer"
        yield f"/v2/models{slash}fraud/infer"
        yield f"{slash}v2/models/fraud/infer"
    for letters in _LETTERS:
        yield f"/v2/models/{letters}/infer"
    for tail in _TAILS:
        yield ROUTE + tail
    yield from _WHOLE
