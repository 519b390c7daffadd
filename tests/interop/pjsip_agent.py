# ruff: noqa: N802  (the names of its callbacks are the library's)
"""PJSIP as a user agent: run by interop_pjsip.py in a process and with a Python of its own, since it needs pjsua2.

    python pjsip_agent.py '{"host": ..., "log": ..., "tls": {"roots": ..., "certificate": ..., "key": ...} or null}'

An order is a line of JSON on standard input, ``{"order": NAME, ...}``, and is followed by ``{"event": "done"}`` on
standard output, with ``error`` where it failed. What happens is a line as well: ``{"event": NAME, ...}``. It ends with
its standard input. "The call" is the last one that began.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

import pjsua2 as pj

_EVENTS = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)  # the library writes to standard output before it can be told not to


def say(event: str, **values: object) -> None:
    """Tell what happened."""
    _EVENTS.write(json.dumps({"event": event, **values}) + "\n")
    _EVENTS.flush()


class Call(pj.Call):  # type: ignore[misc]
    """One call; :attr:`Agent.calls` keeps it, for the library does not."""

    def __init__(self, agent: Agent, number: int = pj.PJSUA_INVALID_ID) -> None:
        super().__init__(agent, number)
        self.agent = agent
        agent.calls.append(self)

    def onCallState(self, prm: Any) -> None:
        info = self.getInfo()
        say("call", state=info.stateText, code=info.lastStatusCode)

    def onCallMediaState(self, prm: Any) -> None:
        info = self.getInfo()  # which the loop does not keep alive
        for media in info.media:
            if media.type == pj.PJMEDIA_TYPE_AUDIO:
                names = {
                    pj.PJSUA_CALL_MEDIA_ACTIVE: "active",
                    pj.PJSUA_CALL_MEDIA_LOCAL_HOLD: "holding",
                    pj.PJSUA_CALL_MEDIA_REMOTE_HOLD: "held",
                }
                say("media", state=names.get(media.status, "none"))

    def onCallTsxState(self, prm: Any) -> None:
        """INFO is left to the application, in both directions."""
        transaction = prm.e.body.tsxState.tsx
        if transaction.method != "INFO":
            return
        if transaction.role == pj.PJSIP_ROLE_UAC:
            if transaction.state == pj.PJSIP_TSX_STATE_COMPLETED:
                say("info answered", code=transaction.statusCode)
        elif transaction.state == pj.PJSIP_TSX_STATE_TRYING:
            say("info", message=prm.e.body.tsxState.src.rdata.wholeMsg)

    def onDtmfDigit(self, prm: Any) -> None:
        say("digit", digit=prm.digit)

    def onCallTransferRequest(self, prm: Any) -> None:
        prm.newCall = Call(self.agent)
        say("transfer", target=prm.dstUri)

    def onCallTransferStatus(self, prm: Any) -> None:
        say("transfer status", code=prm.statusCode, final=prm.finalNotify)


class Buddy(pj.Buddy):  # type: ignore[misc]
    """Somebody to whom messages are sent and whose presence is watched."""

    def onBuddyState(self) -> None:
        info = self.getInfo()
        say("presence", subscription=info.subStateName, online=info.presStatus.status == pj.PJSUA_BUDDY_STATUS_ONLINE)


class Agent(pj.Account):  # type: ignore[misc]
    """The one account, with one transport.

    Args:
        host: Where it listens, on any port.
        tls: Files with its certificate, key and roots; None for TCP.
        log: The file for what PJSIP logs.
    """

    def __init__(self, host: str, tls: dict[str, str] | None, log: str) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.buddies: dict[str, Buddy] = {}
        self.busy = False
        self.library = pj.Endpoint()
        self.library.libCreate()
        settings = pj.EpConfig()
        settings.uaConfig.threadCnt = 0  # all callbacks come out of libHandleEvents
        settings.uaConfig.mainThreadOnly = True
        settings.logConfig.consoleLevel = 0
        settings.logConfig.level = 5
        settings.logConfig.filename = log
        settings.medConfig.hasIoqueue = False
        self.library.libInit(settings)
        self.library.audDevManager().setNullDev()
        transport = pj.TransportConfig()
        transport.boundAddress = host
        if tls is not None:
            transport.tlsConfig.method = pj.PJSIP_TLSV1_2_METHOD
            transport.tlsConfig.CaListFile = tls["roots"]
            transport.tlsConfig.certFile = tls["certificate"]
            transport.tlsConfig.privKeyFile = tls["key"]
            transport.tlsConfig.verifyServer = True
            transport.tlsConfig.verifyClient = True
            transport.tlsConfig.requireClientCert = True
        kind = pj.PJSIP_TRANSPORT_TCP if tls is None else pj.PJSIP_TRANSPORT_TLS
        number = self.library.transportCreate(kind, transport)
        self.library.libStart()
        self.address = "sip:pjsip@{};transport={}".format(
            self.library.transportGetInfo(number).localName, "tcp" if tls is None else "tls"
        )
        self.settings = pj.AccountConfig()
        self.settings.idUri = f"<{self.address}>"
        self.settings.sipConfig.transportId = number
        self.settings.mediaConfig.transportConfig.boundAddress = host
        self.create(self.settings)

    def run(self) -> None:
        """Do what is ordered until standard input ends."""
        data = b""
        say("ready", address=self.address)
        while True:
            self.library.libHandleEvents(10)
            if not select.select([0], [], [], 0)[0]:
                continue
            chunk = os.read(0, 65536)
            if not chunk:
                break
            *lines, data = (data + chunk).split(b"\n")
            for line in lines:
                self.obey(json.loads(line))
        os._exit(0)  # libDestroy waits for a second

    def obey(self, words: dict[str, Any]) -> None:
        """Do what is ordered."""
        name = words.pop("order")
        try:
            getattr(self, f"order_{name}")(**words)
        except pj.Error as error:
            say("done", error=error.info())
        else:
            say("done", error=None)

    def onIncomingCall(self, prm: Any) -> None:
        Call(self, prm.callId).answer(self.parameter(180))
        say("incoming", message=prm.rdata.wholeMsg)
        if not self.busy:
            self.calls[-1].answer(self.parameter(200))

    def onInstantMessage(self, prm: Any) -> None:
        say("message", body=prm.msgBody, type=prm.contentType)

    def onInstantMessageStatus(self, prm: Any) -> None:
        say("message answered", code=prm.code)

    def onIncomingSubscribe(self, prm: Any) -> None:
        say("subscribe", who=prm.fromUri)

    @staticmethod
    def parameter(code: int = 0) -> Any:
        """What most orders to the library take."""
        made = pj.CallOpParam(True)
        made.statusCode = code
        return made

    @property
    def call(self) -> Call:
        """The last one."""
        return self.calls[-1]

    def buddy(self, address: str) -> Buddy:
        """Somebody, made when first asked for."""
        if address not in self.buddies:
            settings = pj.BuddyConfig()
            settings.uri = f"<{address}>"
            made = Buddy()
            made.create(self, settings)
            self.buddies[address] = made
        return self.buddies[address]

    def order_reliable(self, use: str) -> None:
        """Reliable provisional responses: ``never``, ``maybe`` or ``always``."""
        uses = {
            "never": pj.PJSUA_100REL_NOT_USED,
            "maybe": pj.PJSUA_100REL_OPTIONAL,
            "always": pj.PJSUA_100REL_MANDATORY,
        }
        self.settings.callConfig.prackUse = uses[use]
        self.modify(self.settings)

    def order_ring_only(self) -> None:
        """From now on calls are not answered by themselves."""
        self.busy = True

    def order_dial(self, address: str) -> None:
        Call(self).makeCall(address, self.parameter())

    def order_answer(self, code: int) -> None:
        self.call.answer(self.parameter(code))

    def order_hold(self) -> None:
        self.call.setHold(self.parameter())

    def order_resume(self) -> None:
        made = self.parameter()
        made.opt.flag |= pj.PJSUA_CALL_UNHOLD
        self.call.reinvite(made)

    def order_info(self, type: str, body: str) -> None:
        made = pj.CallSendRequestParam()
        made.method = "INFO"
        made.txOption.contentType = type
        made.txOption.msgBody = body
        self.call.sendRequest(made)

    def order_transfer(self, address: str) -> None:
        self.call.xfer(address, self.parameter())

    def order_hang_up(self) -> None:
        self.call.hangup(self.parameter())

    def order_message(self, address: str, body: str) -> None:
        made = pj.SendInstantMessageParam()
        made.contentType = "text/plain"
        made.content = body
        self.buddy(address).sendInstantMessage(made)

    def order_watch(self, address: str, on: bool) -> None:
        self.buddy(address).subscribePresence(on)

    def order_show(self, online: bool) -> None:
        """The presence of its own, told to who watches."""
        made = pj.PresenceStatus()
        made.status = pj.PJSUA_BUDDY_STATUS_ONLINE if online else pj.PJSUA_BUDDY_STATUS_OFFLINE
        self.setOnlineStatus(made)


if __name__ == "__main__":
    Agent(**json.loads(sys.argv[1])).run()
