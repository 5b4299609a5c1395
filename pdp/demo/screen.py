"""What the audience sees: a spinner while something is awaited, then the story as a table that grows step by step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pdp.demo.stage import Stage
from pdp.demo.story import PEOPLE, Step, Told

PLAIN_WIDTH = 150
"""Columns where nobody looks at a terminal: wide enough that no cell wraps in a log."""
DETAIL_WIDTH = 136
"""Columns from which on a column of details fits without wrapping the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """One console; colour and movement only if it is a terminal."""

    console: Console

    @contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Show what is being waited for."""
        with self.console.status(f"[dim]{text} …"):
            yield

    @contextmanager
    def telling(self) -> Iterator["Telling"]:
        """Show the growing table; where nothing can move, show it once at the end."""
        telling = Telling()
        if not self.console.is_terminal:
            yield telling
            self.console.print(telling)
            return
        with Live(telling, console=self.console, refresh_per_second=8, vertical_overflow="visible"):
            yield telling


class Telling:
    """The table of the steps told so far, and the one being told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.current: Step | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield story_table(self.told, details=options.max_width >= DETAIL_WIDTH)
        if self.current is not None and console.is_terminal:
            yield Text(f"…  {self.current.name}", style="dim")


def open_screen() -> Screen:
    """Return the screen for standard output."""
    console = Console(highlight=False)
    return Screen(console=console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH))


def story_table(told: Sequence[Told], *, details: bool) -> Table:
    """Return the steps as a table: expected beside actual."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold dim")
    headings = {"": "", "step": "", "who": "cyan", "expected": "dim", "actual": ""} | ({" ": "dim"} if details else {})
    for heading, style in headings.items():
        table.add_column(heading, style=style, overflow="fold")
    for one in told:
        cells = _cells(one)
        table.add_row(*(cells if details else cells[:-1]))
    return table


def introduction(stage: Stage) -> Text:
    """Return who takes part, and what they are about to touch."""
    people = "; ".join(f"{person.name}, {person.does}" for person in PEOPLE)
    doors = f"the model at {stage.model_url}, behind the gate at {stage.gate_url}, decided with {stage.pdp_address}"
    return Text(f"{people}\n{stage.model_says}\n{doors}\n", style="dim")


def verdict(told: Sequence[Told]) -> Text:
    """Return the last lines: what was measured, and how many steps went as promised."""
    measured = "".join(f"{one.outcome.measured}\n" for one in told if one.outcome.measured)
    failed = sum(not one.as_promised for one in told)
    if failed:
        return Text(measured).append(f"{failed} of {len(told)} steps did not go as promised", style="bold red")
    return Text(measured).append(f"all {len(told)} steps as promised", style="bold green")


def _cells(one: Told) -> tuple[Text, ...]:
    mark, style = ("✔", "green") if one.as_promised else ("✘", "bold red")
    step, outcome = one.step, one.outcome
    first = (Text(mark, style=style), Text(step.name), Text(step.who), Text(step.expected))
    return (*first, Text(outcome.actual, style=style), Text(outcome.detail))
