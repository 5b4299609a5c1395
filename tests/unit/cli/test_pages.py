"""What pages are made of: markup cannot come in as text, and no name hides another."""

from pdp.cli.pages import document, short, table, text

EVIL = "</td><script>alert(1)</script>\u202e\x1b[31m\"'"


def test_text_is_never_markup_and_never_steers() -> None:
    for page in (text(EVIL), table(("a",), [(EVIL,)]), document(EVIL, ())):
        assert "<script" not in page
        assert not {"\u202e", "\x1b"} & set(page)
        assert "&lt;script&gt;" in page


def test_a_page_loads_nothing_and_fits_screens_and_paper() -> None:
    page = document("T", ())
    assert "default-src 'none'; style-src 'unsafe-inline'" in page
    for part in ('name="viewport"', "prefers-color-scheme: dark", "@media print", "overflow-wrap"):
        assert part in page


def test_long_names_that_differ_at_the_end_differ_when_short() -> None:
    one, other = ("dataset/" + "customers-" * 9 + end for end in ("eu", "us"))
    assert short(one, 40) != short(other, 40)
    assert [len(short(name, 40)) for name in (one, "x" * 40, "x" * 41)] == [40, 40, 40]
    assert short("x" * 40, 40) == "x" * 40


def test_a_table_without_rows_is_nothing() -> None:
    assert table(("a", "b"), []) == ""
