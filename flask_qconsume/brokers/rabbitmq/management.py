"""What RabbitMQ's management plugin counts and AMQP does not tell.

Asked over HTTP by the standard library, whose sockets are cooperative in a process that
gevent has patched. The plugin's figures are some seconds old.
"""

from __future__ import annotations

import base64
import http.client
import json
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator

from ...errors import BrokerError
from ...errors import BrokerRefused
from ...errors import BrokerUnavailable
from ...text import escape

#: Seconds that an answer may take.
_TIMEOUT = 10.0
_COLUMNS = "name,type,messages_unacknowledged,messages_dlx,effective_policy_definition"

#: What a policy may set by which messages go, are refused, or are late.
_HARMFUL = (
    "delivery-limit",
    "expires",
    "max-length",
    "max-length-bytes",
    "message-ttl",
)

#: What is known of one queue.
Row = t.Mapping[str, t.Any]


class Management:
    """The management API of one virtual host.

    :param url: Where it is, with a user and a password.
    """

    def __init__(self, url: str, vhost: str) -> None:
        parts = urllib.parse.urlsplit(url)
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        #: The URL without a password.
        self.place = place.geturl().rstrip("/")
        self._login = ":".join(
            urllib.parse.unquote(part or "guest")
            for part in (parts.username, parts.password)
        )
        self._vhost = vhost

    def queues(self) -> dict[str, Row]:
        """What is known of all queues, by name.

        :raises BrokerRefused: if the user may not ask.
        :raises BrokerUnavailable: if there is no answer.
        """
        vhost = urllib.parse.quote(self._vhost, safe="")
        rows = self._get(f"/api/queues/{vhost}?columns={_COLUMNS}")
        return {row["name"]: row for row in rows}

    def _get(self, path: str) -> t.Any:
        login = base64.b64encode(self._login.encode()).decode()
        request = urllib.request.Request(self.place + path)
        # Wherever the answer may redirect to, the password stays here.
        request.add_unredirected_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise BrokerUnavailable(
                f"RabbitMQ's management at '{self.place}' ('QCONSUME_MANAGEMENT_URL')"
                f" does not answer: {escape(error)}. Is the plugin enabled"
                " ('rabbitmq-plugins enable rabbitmq_management'), and the URL right?"
            ) from error

    def _refused(self, code: int) -> BrokerError:
        kind = BrokerUnavailable if code >= 500 else BrokerRefused
        return kind(
            f"RabbitMQ's management at '{self.place}' ('QCONSUME_MANAGEMENT_URL')"
            f" answers {code}. The user needs the tag 'management' ('rabbitmqctl"
            f" set_user_tags') and permissions in the virtual host '{self._vhost}'."
        )


def caveats(queue: str, row: Row) -> Iterator[str]:
    """What an operator has set for a queue that takes from the guarantee."""
    if row.get("type") == "stream":
        yield (
            f"The queue '{queue}' is a stream on the broker: an acknowledgement removes"
            " nothing from it, and nothing is given back. Consume another queue."
        )
    policy = row.get("effective_policy_definition") or {}
    for name in _HARMFUL:
        if name in policy:
            yield (
                f"A policy of the broker sets '{name}' to {policy[name]} for the queue"
                f" '{queue}': messages may go, be refused or be late by it. Exclude the"
                " queue from the policy's pattern."
            )
