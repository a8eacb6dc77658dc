"""The page of dead letters: what was rejected and why; tried again, or thrown away.

``flask qconsume dead-letters`` does the same from a shell, wherever the messages are
not in the memory of another process.
"""

from __future__ import annotations

import typing as t

from flask import Blueprint
from flask import abort
from flask import current_app
from flask import redirect
from flask import render_template
from flask import url_for
from flask.typing import ResponseReturnValue

from flask_qconsume.broker.base import DeadLetters

bp = Blueprint("dead_letters", __name__, url_prefix="/dead-letters")


@bp.get("/")
def index() -> ResponseReturnValue:
    """All dead letters, the latest first."""
    found = [letter for queue in queues().values() for letter in queue]
    found.sort(key=lambda letter: died_at(letter.headers), reverse=True)
    return render_template("dead_letters.html", letters=found)


@bp.post("/<queue>/<ref>/<any(replay, discard):action>")
def take(queue: str, ref: str, action: str) -> ResponseReturnValue:
    """Give one back to the queue that it failed in, or throw it away."""
    letters = queues().get(queue) or abort(404)
    letters.take(lambda letter: letter.ref == ref, replay=action == "replay")
    return redirect(url_for(".index"), 303)


def queues() -> dict[str, DeadLetters]:
    """The dead letters of each queue of the app."""
    found = current_app.extensions["qconsume"]
    return {
        plan.name: found.broker.dead_letters(plan) for plan in found.topology.queues
    }


def died_at(headers: t.Mapping[str, t.Any]) -> float:
    """When a message was rejected."""
    return float(headers.get("x-qconsume-died-at", 0.0))


@bp.app_context_processor
def broker() -> dict[str, t.Any]:
    """Let every page say which broker it runs on."""
    return {"broker": current_app.extensions["qconsume"].broker.capabilities}
