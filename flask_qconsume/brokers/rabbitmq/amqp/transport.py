"""kombu's pyamqp transport, hardened against odd messages, and safe with greenlets.

* Every message that the broker can deliver arrives (see :mod:`.frames`).
* A connection never reconnects. py-amqp would reconnect when some attributes are read:
  the new connection has no consumers, and stays silent for ever.
* A channel that the broker closed is not reopened in place: its delivery tags start at
  1 again, and a late acknowledgement would remove another message.
* Reads are buffered: one system call for many frames, and a timeout loses none of them.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import threading
import typing as t
import weakref

from amqp import spec
from amqp import transport as sockets
from amqp.exceptions import ChannelError
from amqp.exceptions import RecoverableConnectionError
from amqp.exceptions import error_for_code
from amqp.method_framing import frame_writer
from amqp.serialization import loads
from kombu.transport import pyamqp

from . import frames

#: Bytes of a read.
_RECV_SIZE = 128 * 1024
#: Bytes of a frame until client and broker have agreed; py-amqp's own default.
_FRAME_MAX = 128 * 1024

#: Errors of a non-blocking socket without data.
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError)

#: The connections that a forked child must not use.
_open_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class _BufferedReads:
    """Reads whole frames from a buffer. A mixin for py-amqp's transports."""

    connected: bool
    _quick_recv: t.Callable[[int], bytes]

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_buffer = b""
        self._offset = 0
        #: Bytes that a frame's payload may have.
        self.max_frame_size = _FRAME_MAX

    def read_frame(self) -> frames.Frame:
        self.await_frame()
        frame = frames.parse_frame_at(self._read_buffer, self._offset)
        self._offset += len(frame[2]) + frames.OVERHEAD
        return frame

    def await_frame(self) -> None:
        """Read from the socket until a whole frame is in the buffer."""
        while not self.has_frame:
            frames.check_size(self._read_buffer, self._offset, self.max_frame_size)
            self._fill()

    @property
    def has_frame(self) -> bool:
        return frames.has_frame(self._read_buffer, self._offset)

    def take_delivery(self, channel: int) -> frames.BasicDeliver | None:
        """Return the next delivery, or ``None`` unless all of it has arrived."""
        delivery = frames.parse_delivery_at(self._read_buffer, self._offset, channel)
        if delivery is not None:
            self._offset = delivery.end
        return delivery

    def _fill(self) -> None:
        try:
            data = self._quick_recv(_RECV_SIZE)
        except OSError as error:
            if not (is_timeout(error) or isinstance(error, _WOULD_BLOCK)):
                self.connected = False
            raise
        if not data:
            self.connected = False
            raise ConnectionResetError("the broker closed the connection")
        self._read_buffer = self._read_buffer[self._offset :] + data
        self._offset = 0


class TCP(_BufferedReads, sockets.TCPTransport):  # type: ignore[misc]
    """A transport of py-amqp without TLS, with buffered reads."""


class TLS(_BufferedReads, sockets.SSLTransport):  # type: ignore[misc]
    """A transport of py-amqp over TLS, with buffered reads."""

    def _shutdown_transport(self) -> None:
        # py-amqp waits for the peer's close here, while another greenlet reads.
        return


def is_timeout(error: BaseException) -> bool:
    """Return whether an error means that a socket's own time-out has passed.

    The operating system reports a dead connection (``ETIMEDOUT``) by the same class,
    :class:`TimeoutError`, but with an error number.
    """
    return isinstance(error, TimeoutError) and error.errno is None


class Channel(pyamqp.Channel):
    """A channel that accepts any text, never decodes bodies, and never reopens."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        #: Tags of consumers that have started: the broker has confirmed it.
        self.started_consumers: set[str] = set()
        #: Tags of consumers that have ended: the broker has confirmed it.
        self.ended_consumers: set[str] = set()
        #: Called with a delivery if its frames arrived together; otherwise the
        #: consumer's callback is called.
        self.on_raw_delivery: t.Callable[[frames.BasicDeliver], object] = self._deliver
        super().__init__(*args, **{**kwargs, "auto_decode": False})

    def dispatch_method(
        self, method_sig: frames.Signature, payload: bytes, content: t.Any
    ) -> None:
        if method_sig == spec.Basic.Deliver:
            self._on_basic_deliver(*frames.parse_deliver(payload), content)
            return
        if layout := _LAYOUTS.get(method_sig):
            payload = _escape_text(layout, payload)
        super().dispatch_method(method_sig, payload, content)

    def _deliver(self, delivery: frames.BasicDeliver) -> None:
        content = frames.Content(delivery.body)
        content.properties, content.problem = frames.parse_properties(delivery.header)
        self._on_basic_deliver(*delivery[:5], content)

    def _setup_listeners(self) -> None:
        super()._setup_listeners()
        self._callbacks[spec.Basic.ConsumeOk] = self._on_basic_consume_ok

    def _on_basic_consume_ok(self, consumer_tag: str) -> None:
        self.started_consumers.add(consumer_tag)

    def _on_basic_cancel_ok(self, consumer_tag: str) -> None:
        self.ended_consumers.add(consumer_tag)
        super()._on_basic_cancel_ok(consumer_tag)

    def _on_close(self, reply_code: int, reply_text: str, *method: int) -> None:
        self.send_method(spec.Channel.CloseOk)
        self.is_open = False
        if not self.is_closing:
            raise error_for_code(reply_code, reply_text, method, ChannelError)


#: Argument types of methods with text of publishers, except Basic.Deliver.
_LAYOUTS = {spec.Basic.GetOk: "Lbssl", spec.Basic.Return: "Bsss"}


def _escape_text(layout: str, payload: bytes) -> bytes:
    try:
        loads(layout, payload, 4)
    except UnicodeDecodeError:
        return frames.escape_short_strings(layout, payload)
    return payload


class Connection(pyamqp.Connection):
    """A connection that never reconnects, with a lock for writing."""

    Channel = Channel

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        #: Held while frames are written. py-amqp has such a lock too, but out of reach:
        #: to close a connection, a caller must take it with a time limit, so that it
        #: neither cuts a frame nor waits for ever.
        self.write_lock = threading.Lock()
        super().__init__(
            *args,
            **{
                **kwargs,
                "frame_handler": frames.FrameHandler,
                "frame_writer": self._locked_writer,
            },
        )

    def Transport(
        self,
        host: str,
        connect_timeout: float | None,
        ssl: t.Any = False,
        *timeouts: float | None,
        **options: t.Any,
    ) -> t.Any:
        names = ("read_timeout", "write_timeout")
        options |= dict(zip(names, timeouts, strict=False))
        kind = TLS if ssl else TCP
        return kind(host, connect_timeout=connect_timeout, ssl=ssl, **options)

    def connect(self, callback: t.Any = None) -> t.Any:
        try:
            result = super().connect(callback)
        except BaseException:
            # py-amqp frees the socket after an OSError only, not after a refused login.
            self.collect()
            raise
        _open_connections.add(self)
        return result

    def _on_tune(self, *agreed: int) -> None:
        super()._on_tune(*agreed)
        self.transport.max_frame_size = self.frame_max

    def _warn_force_connect(self, attr: str) -> None:
        raise RecoverableConnectionError("the connection is closed")

    def _locked_writer(self, connection: t.Any, transport: t.Any) -> t.Any:
        write_frame = frame_writer(connection, transport)

        def write(*frame: t.Any) -> t.Any:
            with self.write_lock, self._mark_broken_on_error(transport):
                return write_frame(*frame)

        return write

    def write(self, data: bytes) -> None:
        """Write whole frames to the socket, under :attr:`write_lock`."""
        with self.write_lock:
            self.write_locked(data)

    def write_locked(self, data: bytes) -> None:
        """Write whole frames to the socket; the caller holds :attr:`write_lock`."""
        transport = self.transport
        with self._mark_broken_on_error(transport):
            transport.write(data)
            self.bytes_sent += 1

    @contextlib.contextmanager
    def _mark_broken_on_error(self, transport: t.Any) -> t.Iterator[None]:
        """Mark the transport as disconnected if the ``with`` block raises.

        A write that is cut short, for example by a timeout, may have sent half a frame.
        The broker could not read the frames after that.
        """
        try:
            yield
        except BaseException:
            transport.connected = False
            raise

    def read_available(self) -> None:
        """Wait for a frame, then process all complete frames in the buffer."""
        transport = self.transport
        transport.await_frame()
        has_frame = True
        while has_frame:
            if not self._take_deliveries(transport):
                self.on_inbound_frame(transport.read_frame())
            has_frame = self._transport is transport and transport.has_frame

    def _take_deliveries(self, transport: t.Any) -> bool:
        """Process the deliveries at the start of the buffer; false without any."""
        has_delivered = False
        for number, channel in list((self.channels or {}).items()):
            if number == 0 or self.on_inbound_frame.expects_content(number):
                continue
            while (delivery := transport.take_delivery(number)) is not None:
                has_delivered = True
                self.bytes_recv += 1
                channel.on_raw_delivery(delivery)
                if self._transport is not transport:
                    return True
        return has_delivered


class Transport(pyamqp.Transport):
    """kombu's transport for ``amqp://``, without TLS."""

    Connection = Connection

    def register_with_event_loop(self, connection: t.Any, loop: t.Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]

        def read_buffered() -> None:
            """Process frames in the buffer; the loop notices only new bytes."""
            if not connection.connected:
                loop.on_tick.discard(read_buffered)
            elif connection.transport.has_frame:
                self.on_readable(connection, loop)  # type: ignore[no-untyped-call]

        loop.on_tick.add(read_buffered)


class TLSTransport(Transport):
    """kombu's transport for ``amqps://``, with TLS."""

    def __init__(self, client: t.Any, **kwargs: t.Any) -> None:
        super().__init__(client, **kwargs)  # type: ignore[no-untyped-call]
        client.ssl = client.ssl or True


def _detach_from_parent() -> None:
    """Make a forked child forget its parent's connections, and tell no broker.

    Under gevent the child also has copies of the greenlets that read the connections.
    The copies would take the parent's messages out of the shared sockets.
    """
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        for connection in list(_open_connections):
            _replace_socket(connection, null)
        os.close(null)
    _open_connections.clear()


def _replace_socket(connection: Connection, null: int) -> None:
    transport = connection._transport
    if transport is None or transport.sock is None:
        return
    transport.connected = False
    if transport.sock.fileno() >= 0:
        # Not closed, because another file would soon get its number, and the socket
        # object would close that file when it is garbage collected.
        os.dup2(null, transport.sock.fileno(), inheritable=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_detach_from_parent)
