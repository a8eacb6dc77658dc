"""Facts about queues that AMQP does not tell, from RabbitMQ's management plugin.

Requests are made by the standard library's HTTP client: its sockets are cooperative in
a process that gevent has patched. The plugin's figures are some seconds old.
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
_TIMEOUT_SECONDS = 10.0
_COLUMNS = (
    "name,type,messages,messages_unacknowledged,messages_dlx"
    ",effective_policy_definition"
)

#: Settings of a policy that drop, refuse or delay messages.
_HARMFUL_SETTINGS = (
    "delivery-limit",
    "expires",
    "max-length",
    "max-length-bytes",
    "message-ttl",
)

#: The columns of one queue.
QueueRow = t.Mapping[str, t.Any]


class Management:
    """RabbitMQ's management API over HTTP, for one virtual host.

    :param url: The API's URL, with a user and a password.
    """

    def __init__(self, url: str, vhost: str) -> None:
        url_parts = urllib.parse.urlsplit(url)
        public = url_parts._replace(netloc=url_parts.netloc.rpartition("@")[2])
        #: Without user and password.
        self._url = public.geturl().rstrip("/")
        self._login = ":".join(
            urllib.parse.unquote(login_part or "guest")
            for login_part in (url_parts.username, url_parts.password)
        )
        self._vhost = vhost

    def queues(self) -> dict[str, QueueRow]:
        """Fetch the numbers and policies of all queues, by the queues' names.

        :raises BrokerRefused: if the user lacks a permission.
        :raises BrokerUnavailable: if there is no answer.
        """
        vhost = urllib.parse.quote(self._vhost, safe="")
        rows = self._get(f"/api/queues/{vhost}?columns={_COLUMNS}")
        return {row["name"]: row for row in rows}

    def _get(self, path: str) -> t.Any:
        login = base64.b64encode(self._login.encode()).decode()
        request = urllib.request.Request(self._url + path)
        # A redirection must not carry the password to another host.
        request.add_unredirected_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._translate_status(error.code) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise BrokerUnavailable(
                f"RabbitMQ's management at '{self._url}' ('QCONSUME_MANAGEMENT_URL')"
                f" does not answer: {escape(error)}. Is the plugin enabled"
                " ('rabbitmq-plugins enable rabbitmq_management'), and the URL right?"
            ) from error

    def _translate_status(self, code: int) -> BrokerError:
        kind = BrokerUnavailable if code >= 500 else BrokerRefused
        return kind(
            f"RabbitMQ's management at '{self._url}' ('QCONSUME_MANAGEMENT_URL')"
            f" answers {code}. The user needs the tag 'management' ('rabbitmqctl"
            f" set_user_tags') and permissions in the virtual host '{self._vhost}'."
        )


def list_caveats(queue: str, row: QueueRow) -> Iterator[str]:
    """Yield warnings about settings of RabbitMQ that may lose a queue's messages."""
    if row.get("type") == "stream":
        yield (
            f"The queue '{queue}' is a stream on the broker: an acknowledgement removes"
            " nothing from it, and no message can be requeued. Consume another queue."
        )
    policy = row.get("effective_policy_definition") or {}
    for name in _HARMFUL_SETTINGS:
        if name in policy:
            yield (
                f"A policy of the broker sets '{name}' to {policy[name]} for the queue"
                f" '{queue}': it may drop, refuse or delay messages. Exclude the queue"
                " from the policy's pattern."
            )
