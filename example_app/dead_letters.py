"""Page of dead letters, with the reason of each; they can be replayed or discarded.

``flask qconsume dead-letters`` does the same in a shell.
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

from flask_qconsume.broker.dead_letters import DeadLetters

bp = Blueprint("dead_letters", __name__, url_prefix="/dead-letters")


@bp.get("/")
def index() -> ResponseReturnValue:
    """List all dead letters, the latest first."""
    found = [letter for queue in open_dead_letters().values() for letter in queue]
    found.sort(key=lambda letter: get_rejection_time(letter.headers), reverse=True)
    return render_template("dead_letters.html", letters=found)


@bp.post("/<queue>/<ref>/<any(replay, discard):action>")
def take(queue: str, ref: str, action: str) -> ResponseReturnValue:
    """Send a dead letter back to its queue, or discard it."""
    letters = open_dead_letters().get(queue) or abort(404)
    letters.take(lambda letter: letter.ref == ref, replay=action == "replay")
    return redirect(url_for(".index"), 303)


def open_dead_letters() -> dict[str, DeadLetters]:
    """Open the dead letters of all queues of the app, by queue."""
    found = current_app.extensions["qconsume"]
    return {
        plan.name: found.broker.dead_letters(plan) for plan in found.topology.queues
    }


def get_rejection_time(headers: t.Mapping[str, t.Any]) -> float:
    """Return the time of the rejection, in seconds since 1970."""
    return float(headers.get("x-qconsume-died-at", 0.0))


@bp.app_context_processor
def add_broker() -> dict[str, t.Any]:
    """Add the broker's capabilities to the context of all templates."""
    return {"broker": current_app.extensions["qconsume"].broker.capabilities}
