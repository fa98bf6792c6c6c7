"""Puts the numbers of report/results/ into the texts: README, report, labs, and their translations.

    python -m report.fill            writes them in
    python -m report.fill --check    only says where texts and files disagree (exit status 1)

A number stands between two comments that a reader does not see. The first says where it is from, a JSON file, the entry
in it, and its format as Python's `format` takes it (or, where the entry holds several numbers, as `str.format` does).
The entries of a CSV file are the columns of its one row, or of the only one with this `column=value`:

    <!-- unet/scores.json report_cars.dice .4f -->0.9904<!-- / -->
    <!-- experiments/width_means.csv width=1 test_accuracy .2% -->99.38%<!-- / -->
    <!-- lenet/benchmark.json ratios.loop_over_bare {min:.2f} to {max:.2f} -->0.96 to 1.13<!-- / -->

A table has a row for each row of a CSV file, its heading is the text's own. `*` keeps a cell as it stands in the text;
`column=value` before the first bar takes only the rows that have it:

    <!-- lenet/seeds.csv network=modern | {seed} | {test_accuracy:.2%} | -->

In a JSON file the words before the first bar name the entries that become rows, or one that holds them all:

    <!-- lenet/benchmark.json images_per_second | * | {median:,.0f} | -->

So whoever doubts a number finds its source beside it, and a new number or table needs no code.
"""

import argparse
import re
import string
import sys
from pathlib import Path
from typing import Any

from report.tables import RESULTS, matching, read_json, read_rows
from training import ROOT, command, told, write_whole

MARKED = re.compile(r"<!-- (\S+\.(?:json|csv)) ([^>]+?) -->((?:(?!<!--).)*)<!-- / -->", re.DOTALL)
STRAY = re.compile(r"<!-- (?:/|\S+\.(?:json|csv)\b.*?) -->")
NUMBER = re.compile(r"((?:\S+=\S+ )*)([^\s{]\S*)? ?(.*)", re.DOTALL)
HEADING = re.compile(r"\s*\|.*\n\|[-:| ]+\|\n")


def texts() -> list[Path]:
    """Every text of the repository that may hold numbers."""
    return sorted(path for folder in (".", "report", "labs", "labs/*") for path in ROOT.glob(f"{folder}/*.md"))


class NumberFormatter(string.Formatter):
    """Formats the numbers of a CSV file, which are text there, and what was not measured."""

    def format_field(self, value: Any, spec: str) -> str:
        if value is None or value == "":
            return "–"
        return format(float(value) if spec and isinstance(value, str) else value, spec)


def entry_of(entry: Any, names: str) -> Any:
    """What stands in `entry` at "KEY.KEY"."""
    for name in names.split("."):
        entry = entry[int(name)] if isinstance(entry, list) else entry[name]
    return entry


def rows_of(path: Path, words: list[str]) -> list[dict[str, Any]]:
    """The rows of a CSV file that have each COLUMN=VALUE in `words`, or the entries of a JSON file that they name."""
    if path.suffix == ".csv":
        return matching(read_rows(path, needed=True), dict(word.split("=", 1) for word in words))
    entries = [entry_of(read_json(path), word) for word in words]
    return list(entries[0].values()) if len(entries) == 1 else entries


def number(path: Path, source: str, _old: str) -> str:
    """The entry of a file that `source`, "COLUMN=VALUE KEY.KEY FORMAT", names; raises what is wrong with it."""
    only, names, form = NUMBER.fullmatch(source).groups()
    (entry,) = rows_of(path, only.split()) if path.suffix == ".csv" else [read_json(path)]
    entry = entry_of(entry, names) if names else entry
    formatter = NumberFormatter()
    return formatter.format(form, **entry) if "{" in form else formatter.format_field(entry, form)


def table(path: Path, source: str, old: str) -> str:
    """The rows of a file as `source`, "COLUMN=VALUE | {COLUMN:FORMAT} | * |", says, under the heading of `old`."""
    heading = HEADING.match(old)
    if heading is None:
        raise ValueError("a table needs its heading between the comments, down to the line of dashes")
    only, _, cells = source.partition("|")
    forms = [cell.strip() for cell in cells.strip().strip("|").split("|")]
    rows = rows_of(path, only.split())
    stood = [line.strip("|").split("|") for line in old[heading.end() :].strip().splitlines()]
    if not rows or "*" in forms and len(stood) != len(rows):
        raise ValueError(f"the file has {len(rows)} such rows, the text {len(stood)}")
    lines = []
    for index, row in enumerate(rows):
        filled = [
            stood[index][at].strip() if form == "*" else NumberFormatter().format(form, **row)
            for at, form in enumerate(forms)
        ]
        lines.append(f"| {' | '.join(filled)} |".replace("– ± –", "–"))  # of what all others are compared with
    return heading[0] + "\n".join(lines) + "\n\n"


def fill(text: str) -> tuple[str, list[str], list[str]]:
    """`text` with its numbers as the files have them; which of them differed; and which cannot be had, and stay."""
    changes, errors = [], []

    def renew(match: re.Match[str]) -> str:
        name, source, old = match.groups()
        make = table if "|" in source else number
        try:
            new = make(RESULTS / name, source, old)
        except (OSError, KeyError, IndexError, ValueError, TypeError) as error:
            errors.append(f"{name} {source}: {type(error).__name__}: {error}")
            return match[0]
        if new != old:
            changes.append(f"{name} {source} is {old.strip()!r}, the file says {new.strip()!r}")
        return f"<!-- {name} {source} -->{new}<!-- / -->"

    filled = MARKED.sub(renew, text)
    errors += [f"{stray[0]} has no partner" for stray in STRAY.finditer(MARKED.sub("", text))]
    return filled, changes, errors


def fill_in(path: Path, check: bool) -> bool:
    """Fills in the text `path`, or only `check`s it, and says what differed; whether that leaves something wanting."""
    filled, changes, errors = fill(path.read_text(encoding="utf-8"))
    for change in changes:
        print(f"{path.relative_to(ROOT)}: {change}")
    for error in errors:
        print(f"error: {path.relative_to(ROOT)}: {error}", file=sys.stderr)
    if changes and not check:
        with write_whole(path) as part:
            part.write_text(filled, encoding="utf-8")
    return bool(errors) or (check and bool(changes))


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    with told():
        sys.exit(int(any([fill_in(path, check) for path in texts()])))


if __name__ == "__main__":
    main()
