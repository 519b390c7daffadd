"""Draw the transaction state machines.

    python tools/state_tables.py                  all tables as text
    python tools/state_tables.py --dot NAME       one as a Graphviz graph, for "dot -Tsvg"

NAME is one of INVITE_CLIENT, NON_INVITE_CLIENT, INVITE_SERVER, NON_INVITE_SERVER.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Iterator, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from p2psip.core import tables
from p2psip.core.tables import State, Table

NAMES = ("INVITE_CLIENT", "NON_INVITE_CLIENT", "INVITE_SERVER", "NON_INVITE_SERVER")


def text_lines(table: Table) -> Iterator[str]:
    """The table for reading: what each state does, then what it ignores."""
    yield table.title
    yield "=" * len(table.title)
    yield f"begins in {table.start[0].value}: {', '.join(table.start[1])}"
    states = {state for state, _ in (*table.rows, *table.ignored)}
    for state in (state for state in State if state in states):
        yield ""
        yield state.value
        for (here, event), (there, actions) in table.rows.items():
            if here is state:
                arrow = f"-> {there.value}" if there is not here else ""
                yield f"    {event.value:<20} {arrow:<14} {', '.join(actions)}".rstrip()
        ignored = sorted(event.value for here, event in table.ignored if here is state)
        if ignored:
            yield f"    ignored: {', '.join(ignored)}"


def dot_lines(table: Table) -> Iterator[str]:
    """The table as a directed graph."""
    yield "digraph {"
    yield f'    label="{table.title}"'
    yield '    node [shape=box, style=rounded, fontname="sans-serif"]'
    yield '    edge [fontname="sans-serif", fontsize=10]'
    yield "    start [shape=point]"
    yield f'    start -> {table.start[0].name} [label="{_label("", table.start[1])}"]'
    for (here, event), (there, actions) in table.rows.items():
        yield f'    {here.name} -> {there.name} [label="{_label(event.value, actions)}"]'
    yield "}"


def _label(event: str, actions: Sequence[str]) -> str:
    return "\\n".join(filter(None, (event, ", ".join(actions))))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draw the transaction state machines.")
    parser.add_argument("--dot", choices=NAMES, metavar="NAME", help="one as a Graphviz graph: " + ", ".join(NAMES))
    name = parser.parse_args(arguments).dot
    if name is not None:
        print("\n".join(dot_lines(getattr(tables, name))))
    else:
        print("\n\n\n".join("\n".join(text_lines(table)) for table in tables.TABLES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
