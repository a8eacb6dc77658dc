"""A process that takes messages, acknowledges some, and holds the rest.

It reads its task as a line of JSON, prints a line for each message that it takes, then
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
    task = json.loads(sys.stdin.readline())
    plan = make_plan(task["plan"])
    settings = Settings.from_config(task["config"])
    broker = open_broker(settings, Topology(task["exchange"], (plan,)))
    link = broker.connect(plan, Lane(task["lane"]), task["count"])
    threading.Thread(target=keep_alive, args=[link], daemon=True).start()
    held = take(link, task["count"])
    # The link must not fetch further messages in place of the acknowledged ones.
    link.pause()
    link.ack(held[: task["acked"]])
    # The broker may receive acknowledgements in batches.
    threading.Event().wait(0.3)
    report("acked")
    sys.stdin.readline()


def make_plan(task: dict[str, t.Any]) -> QueuePlan:
    bindings = tuple(Binding(**binding) for binding in task.pop("bindings"))
    return QueuePlan(**task, bindings=bindings)


def take(link: Link, count: int) -> list[Delivery]:
    held: list[Delivery] = []
    while len(held) < count:
        for delivery in link.read(count - len(held)):
            held.append(delivery)
            message = delivery.message
            body = message.raw.decode("latin-1")
            report(json.dumps({"body": body, "redelivered": message.redelivered}))
    return held


def keep_alive(link: Link) -> None:
    while not threading.Event().wait(link.keep_alive_interval):
        link.keep_alive()


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
