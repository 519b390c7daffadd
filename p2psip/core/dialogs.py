"""All dialogs of one engine, and which of them a request, a flow or a transfer belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from p2psip.core.dialog import Dialog, DialogUsage
from p2psip.core.flow import Flow
from p2psip.core.usage import Usage
from p2psip.message import Request


class Dialogs:
    """Known by what their requests bear. The engine's first finder.

    Attributes:
        refused: How often there were enough.
    """

    def __init__(self) -> None:
        self._dialogs: dict[tuple[str, str | None, str | None], Dialog] = {}
        self._flows: dict[Flow, dict[Dialog, None]] = {}
        self._expected: dict[tuple[str, str | None], Usage] = {}
        self._waiting: dict[DialogUsage, None] = {}
        self.refused = 0

    def __len__(self) -> int:
        return len(self._dialogs)

    def __iter__(self) -> Iterator[Dialog]:
        return iter(list(self._dialogs.values()))

    def are_enough(self, maximum: int) -> bool:
        """One is about to be begun, and there are as many as there may be."""
        enough = len(self._dialogs) >= maximum
        self.refused += enough
        return enough

    def usages(self) -> list[DialogUsage]:
        """Every usage of every dialog, and those that wait for one."""
        there = dict.fromkeys(usage for dialog in self._dialogs.values() for usage in dialog.usages)
        return list(there | self._waiting)

    def wait(self, usage: DialogUsage) -> None:
        """A usage that has neither a dialog nor a request under way, and does not want to be forgotten."""
        self._waiting[usage] = None

    def wait_no_more(self, usage: DialogUsage) -> None:
        """The opposite. It is no error if it did not."""
        self._waiting.pop(usage, None)

    def get(self, call_id: str, local_tag: str | None, remote_tag: str | None) -> Dialog | None:
        """The dialog with that name, as Replaces and Join give it (RFC 3891 3)."""
        return self._dialogs.get((call_id, local_tag, remote_tag))

    def find(self, request: Request, flow: Any) -> Usage | None:
        """The dialog of a request, else whoever expects one (:meth:`expect`)."""
        tag = request.to_tag
        if tag is None:
            return None
        call_id = request.call_id or ""
        dialog = self._dialogs.get((call_id, tag, request.from_tag))
        return dialog if dialog is not None else self._expected.get((call_id, tag))

    def number_again(self, request: Request) -> None:
        """Give a request of ours, which is to be sent once more, the number after its own, or its dialog's next one."""
        number = request.cseq.number + 1
        dialog = self._dialogs.get((request.call_id or "", request.from_tag, request.to_tag))
        if dialog is not None:
            number = dialog.local_sequence = max(number, dialog.local_sequence + 1)
        request.headers.set("CSeq", f"{number} {request.method}")

    def expect(self, call_id: str, local_tag: str | None, usage: Usage) -> None:
        """The usage takes requests of dialogs that are not known yet: NOTIFY may come before the 2xx to SUBSCRIBE, and
        from several notifiers (RFC 6665 4.4.1)."""
        self._expected[(call_id, local_tag)] = usage

    def expect_no_more(self, call_id: str, local_tag: str | None) -> None:
        """The opposite. It is no error if nobody did."""
        self._expected.pop((call_id, local_tag), None)

    # ------------------------------------------------------------------ what dialogs and the engine tell

    def keep(self, dialog: Dialog) -> None:
        """It has a usage."""
        if self._dialogs.get(dialog.key) is not dialog:
            self._dialogs[dialog.key] = dialog
            if dialog.flow is not None:
                self._flows.setdefault(dialog.flow, {})[dialog] = None

    def drop(self, dialog: Dialog) -> None:
        """It has no usage any more."""
        if self._dialogs.get(dialog.key) is dialog:
            del self._dialogs[dialog.key]
            self._leave(dialog)

    def move(self, dialog: Dialog, flow: Flow) -> None:
        """It uses another flow from now on."""
        self._leave(dialog)
        dialog.flow = flow
        if self._dialogs.get(dialog.key) is dialog:
            self._flows.setdefault(flow, {})[dialog] = None

    def _leave(self, dialog: Dialog) -> None:
        flow = dialog.flow
        there = None if flow is None else self._flows.get(flow)
        if flow is not None and there is not None:
            there.pop(dialog, None)
            if not there:
                del self._flows[flow]

    def flow_closed(self, now: float, flow: Flow) -> None:
        """The flow is gone; dialogs live on."""
        for dialog in self._flows.pop(flow, {}):
            dialog.flow = None
            for usage in dialog.usages:
                usage.flow_lost(now, flow)
