"""A process that takes messages, acknowledges some, and holds the others.

It is told what to do in a line of JSON, says a line for each message that it has, then
``acked``, and waits to be killed.
"""

from __future__ import annotations

import json
import sys
import threading
import typing as t

from flask_qconsume.broker.link import Delivery
from flask_qconsume.broker.link import Lane
from flask_qconsume.broker.link import Link
from flask_qconsume.broker.topology import Binding
from flask_qconsume.broker.topology import QueuePlan
from flask_qconsume.broker.topology import Topology
from flask_qconsume.broker.urls import open_broker
from flask_qconsume.settings import Settings


def main() -> None:
    told = json.loads(sys.stdin.readline())
    plan = planned(told["plan"])
    settings = Settings.from_config(told["config"])
    broker = open_broker(settings, Topology(told["exchange"], (plan,)))
    link = broker.connect(plan, Lane(told["lane"]), told["count"])
    threading.Thread(target=beat, args=[link], daemon=True).start()
    held = take(link, told["count"])
    # Not a further one in place of those that it acknowledges.
    link.pause()
    link.ack(held[: told["acked"]])
    # A broker may take acknowledgements in batches.
    threading.Event().wait(0.3)
    say("acked")
    sys.stdin.readline()


def planned(told: dict[str, t.Any]) -> QueuePlan:
    bindings = tuple(Binding(**binding) for binding in told.pop("bindings"))
    return QueuePlan(**told, bindings=bindings)


def take(link: Link, count: int) -> list[Delivery]:
    held: list[Delivery] = []
    while len(held) < count:
        for delivery in link.read(count - len(held)):
            held.append(delivery)
            message = delivery.message
            body = message.raw.decode("latin-1")
            say(json.dumps({"body": body, "redelivered": message.redelivered}))
    return held


def beat(link: Link) -> None:
    while not threading.Event().wait(link.keep_alive_interval):
        link.keep_alive()


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
