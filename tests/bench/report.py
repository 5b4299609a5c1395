"""What a benchmark reports: one figure, beside a peer's, as a table for people and `build/bench.json` for programs."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value; `ratio` compares it with the figure named `versus` in the same run."""

    name: str
    value: float
    unit: str
    versus: str = ""
    ratio: float | None = None


def machine() -> str:
    """Return the machine in words: processor, cores, Python."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def per_call_us(call: Callable[[], object], *, at_least_s: float = 0.2, rounds: int = 5) -> float:
    """Return the median over `rounds` of the time of one call in microseconds, each round at least `at_least_s` long."""
    number = 1
    while (elapsed := _timed(call, number)) < at_least_s / 10:
        number *= 4
    number = max(1, int(number * at_least_s / max(elapsed, 1e-9)))
    return statistics.median(_timed(call, number) / number for _ in range(rounds)) * 1e6


def per_question_us(answer: Callable[[_T], object], questions: Sequence[_T], *, at_least_s: float = 0.3) -> float:
    """Return the median of three rounds of the processor time of one question, in microseconds.

    The questions are asked in turn, so that what a peer or a processor remembers of the last one answers none; a round is
    at least `at_least_s` long and at least ten questions. Processor time: what else the machine does counts less.
    """
    turn = cycle(questions)
    number = 10
    while (elapsed := _asked(answer, islice(turn, number))) < at_least_s / 10:
        number *= 4
    number = max(10, int(number * at_least_s / elapsed))
    return statistics.median(_asked(answer, islice(turn, number)) / number for _ in range(3)) * 1e6


def _asked(answer: Callable[[_T], object], questions: Iterable[_T]) -> float:
    start = time.process_time()
    for question in questions:
        answer(question)
    return time.process_time() - start


def _timed(call: Callable[[], object], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        call()
    return time.perf_counter() - start


def show(title: str, figures: list[Figure]) -> None:
    """Print one group of figures as a table."""
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("versus")
    table.add_column("ratio", justify="right")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:,.2f}"
        table.add_row(figure.name, f"{figure.value:,.2f}", figure.unit, figure.versus, ratio)
    console = Console()
    console.print(table) if console.is_terminal else Console(width=110).print(table)


def write(figures: list[Figure], path: Path) -> None:
    """Write all figures to `path` as a JSON list of {name, value, unit, versus, ratio}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")


def publish(part: str, figures: list[Figure], page: Path) -> None:
    """Put the table of one part between its marks on `page`: what stands there was printed, and typed by nobody."""
    start, end = f"<!-- make bench ONLY={part} -->", f"<!-- end of {part} -->"
    before, mark, rest = page.read_text().partition(start)
    if not mark:
        raise SystemExit(f"bench: {page} has no mark `{start}`")
    rows = ["| figure | value | unit | versus | ratio |", "|---|---:|---|---|---:|"]
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:,.2f}"
        rows.append(f"| {figure.name} | {figure.value:,.2f} | {figure.unit} | {figure.versus} | {ratio} |")
    page.write_text("\n".join([before + start, *rows, end]) + rest.partition(end)[2])
