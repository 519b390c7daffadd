# ruff: noqa: N802  (the names of its callbacks are the library's)
"""PJSIP's Python binding as a side of bench_beside.py: run in a process and with a Python of its own, which has pjsua2.

    python bench_pjsip.py '{"tls": {"roots": ..., "certificate": ...} or null}'

Says its address, as a line of JSON. Each further line on standard input orders something, ``[NAME, ARGUMENTS...]``, and
is answered by a line with the result. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from typing import Any

import pjsua2 as pj

_ANSWERS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)  # the library writes to standard output before it can be told not to
LOOPBACK = "127.0.0.1"
IDLE = 0.005
"""Seconds that handling events must have taken for a look at the orders: it has had nothing to do."""


def say(value: object) -> None:
    _ANSWERS.write(json.dumps(value) + "\n")
    _ANSWERS.flush()


class Agent(pj.Account):  # type: ignore[misc]
    """One account with one transport, which answers whatever MESSAGE comes."""

    def __init__(self, tls: dict[str, str] | None) -> None:
        super().__init__()
        self.library = pj.Endpoint()
        self.library.libCreate()
        settings = pj.EpConfig()
        settings.uaConfig.threadCnt = 0  # all callbacks come out of libHandleEvents
        settings.uaConfig.mainThreadOnly = True
        settings.logConfig.level = settings.logConfig.consoleLevel = 0
        settings.medConfig.hasIoqueue = False
        self.library.libInit(settings)
        self.library.audDevManager().setNullDev()
        transport = pj.TransportConfig()
        transport.boundAddress = LOOPBACK
        if tls is not None:
            transport.tlsConfig.method = pj.PJSIP_TLSV1_2_METHOD
            transport.tlsConfig.CaListFile = tls["roots"]
            transport.tlsConfig.certFile = transport.tlsConfig.privKeyFile = tls["certificate"]
            transport.tlsConfig.verifyServer = True
            transport.tlsConfig.verifyClient = True
            transport.tlsConfig.requireClientCert = True
        kind = pj.PJSIP_TRANSPORT_TCP if tls is None else pj.PJSIP_TRANSPORT_TLS
        number = self.library.transportCreate(kind, transport)
        self.library.libStart()
        name = self.library.transportGetInfo(number).localName
        self.address = f"sip:pjsip@{name};transport={'tcp' if tls is None else 'tls'}"
        account = pj.AccountConfig()
        account.idUri = f"<{self.address}>"
        account.sipConfig.transportId = number
        account.mediaConfig.transportConfig.boundAddress = LOOPBACK
        self.create(account)
        self.buddy: pj.Buddy | None = None
        self.message = pj.SendInstantMessageParam()
        self.message.contentType = "text/plain"
        self.last_size = 0
        self.measures = False
        self.answered = self.failed = self.in_flight = 0

    def run(self) -> None:
        say(self.address)
        data = b""
        while True:
            begun = time.perf_counter()
            self.library.libHandleEvents(10)
            if time.perf_counter() - begun < IDLE or not select.select([0], [], [], 0)[0]:
                continue
            chunk = os.read(0, 65536)
            if not chunk:
                os._exit(0)  # libDestroy waits for a second
            *lines, data = (data + chunk).split(b"\n")
            for line in lines:
                name, *arguments = json.loads(line)
                say(getattr(self, name)(*arguments))

    def onInstantMessage(self, prm: Any) -> None:
        if self.measures:
            self.last_size = len(prm.rdata.wholeMsg)

    def onInstantMessageStatus(self, prm: Any) -> None:
        self.in_flight -= 1
        self.answered += 1
        self.failed += prm.code != 200

    def send(self) -> None:
        assert self.buddy is not None
        self.in_flight += 1
        self.buddy.sendInstantMessage(self.message)

    # ------------------------------------------------------------------ orders

    def processor(self) -> float:
        return time.process_time()

    def measure(self, measures: bool) -> int:
        """The size of the last message that came while this was on."""
        self.measures = measures
        return self.last_size

    def exchange(self, address: str, size: int, depth: int, seconds: float) -> list[float]:
        """Bodies of that size, so many in flight. How many were answered in time, how many otherwise than by 200, and
        the seconds."""
        if self.buddy is None:
            settings = pj.BuddyConfig()
            settings.uri = f"<{address}>"
            self.buddy = pj.Buddy()
            self.buddy.create(self, settings)
        self.message.content = "x" * size
        self.answered = self.failed = 0
        begun = time.perf_counter()
        end = begun + seconds
        while time.perf_counter() < end:
            while self.in_flight < depth:  # not in the callback, in which the library may wait for itself for ever
                self.send()
            self.library.libHandleEvents(10)
        answered, taken = self.answered, time.perf_counter() - begun
        while self.in_flight:
            self.library.libHandleEvents(10)
        return [answered, self.failed, taken]


if __name__ == "__main__":
    Agent(**json.loads(sys.argv[1])).run()
