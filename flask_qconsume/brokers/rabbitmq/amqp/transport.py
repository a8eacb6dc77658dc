"""kombu's pyamqp transport, made to survive what publishers and greenlets do to it.

* Every message that the broker can deliver arrives (see :mod:`.amqp_frames`).
* A connection is connected once. py-amqp's properties connect again by themselves when
  they find it closed: a new connection with no consumer, which stays silent for ever.
* A channel that the broker closed is not opened again in place: its tags start anew,
  and a late acknowledgement would remove somebody else's message.
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

_RECV_SIZE = 128 * 1024
#: What py-amqp asks for, and the most that comes before broker and client have agreed.
_FRAME_MAX = 128 * 1024

#: What a socket raises that was told not to wait at all.
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError)

_open: weakref.WeakSet[Connection] = weakref.WeakSet()


class _Buffered:
    """Reads whole frames from a buffer; mixed into py-amqp's transports."""

    connected: bool
    _quick_recv: t.Callable[[int], bytes]

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        self._data = b""
        self._at = 0
        #: How many bytes a frame may have.
        self.largest = _FRAME_MAX

    def read_frame(self) -> frames.Frame:
        self.await_frame()
        frame = frames.frame_at(self._data, self._at)
        self._at += len(frame[2]) + frames.OVERHEAD
        return frame

    def await_frame(self) -> None:
        """Return once :attr:`has_frame` is true."""
        while not self.has_frame:
            frames.check_size(self._data, self._at, self.largest)
            self._fill()

    @property
    def has_frame(self) -> bool:
        """Whether :meth:`read_frame` would return at once."""
        return frames.has_frame(self._data, self._at)

    def take_delivery(self, channel: int) -> frames.BasicDeliver | None:
        """The delivery that comes next, if all of it is there at once."""
        delivery = frames.delivery_at(self._data, self._at, channel)
        if delivery is not None:
            self._at = delivery.end
        return delivery

    def _fill(self) -> None:
        try:
            data = self._quick_recv(_RECV_SIZE)
        except OSError as error:
            if not (is_timeout(error) or isinstance(error, _NOT_NOW)):
                self.connected = False
            raise
        if not data:
            self.connected = False
            raise ConnectionResetError("the broker closed the connection")
        self._data = self._data[self._at :] + data
        self._at = 0


class TCP(_Buffered, sockets.TCPTransport):  # type: ignore[misc]
    """Plain TCP."""


class TLS(_Buffered, sockets.SSLTransport):  # type: ignore[misc]
    """TLS over TCP."""

    def _shutdown_transport(self) -> None:
        # py-amqp waits for the peer's farewell here, while another greenlet reads.
        return


def is_timeout(error: BaseException) -> bool:
    """Whether a socket's own timeout ran out.

    The kernel's ``ETIMEDOUT``, a connection that is dead, is a :class:`TimeoutError` as
    well, but has a number.
    """
    return isinstance(error, TimeoutError) and error.errno is None


class Channel(pyamqp.Channel):
    """A channel that takes any text, leaves bodies alone and is never reopened."""

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        #: The tags of consumers whose beginning, and end, the broker has confirmed.
        self.begun: set[str] = set()
        self.ended: set[str] = set()
        #: Called with a delivery whose frames came all at once, instead of the
        #: consumer's callback. Others still go there.
        self.on_delivered: t.Callable[[frames.BasicDeliver], object] = self._deliver
        super().__init__(*args, **{**kwargs, "auto_decode": False})

    def dispatch_method(
        self, method_sig: frames.Signature, payload: bytes, content: t.Any
    ) -> None:
        if method_sig == spec.Basic.Deliver:
            self._on_basic_deliver(*frames.delivered(payload), content)
            return
        if layout := _LAYOUTS.get(method_sig):
            payload = _readable(layout, payload)
        super().dispatch_method(method_sig, payload, content)

    def _deliver(self, delivery: frames.BasicDeliver) -> None:
        content = frames.Content(delivery.body)
        content.properties, content.problem = frames.properties_of(delivery.header)
        self._on_basic_deliver(*delivery[:5], content)

    def _setup_listeners(self) -> None:
        super()._setup_listeners()
        self._callbacks[spec.Basic.ConsumeOk] = self._on_basic_consume_ok

    def _on_basic_consume_ok(self, consumer_tag: str) -> None:
        self.begun.add(consumer_tag)

    def _on_basic_cancel_ok(self, consumer_tag: str) -> None:
        self.ended.add(consumer_tag)
        super()._on_basic_cancel_ok(consumer_tag)

    def _on_close(self, reply_code: int, reply_text: str, *method: int) -> None:
        self.send_method(spec.Channel.CloseOk)
        self.is_open = False
        if not self.is_closing:
            raise error_for_code(reply_code, reply_text, method, ChannelError)


#: Methods that bring text from outside, beside Basic.Deliver.
_LAYOUTS = {spec.Basic.GetOk: "Lbssl", spec.Basic.Return: "Bsss"}


def _readable(layout: str, payload: bytes) -> bytes:
    try:
        loads(layout, payload, 4)
    except UnicodeDecodeError:
        return frames.with_readable_text(layout, payload)
    return payload


class Connection(pyamqp.Connection):
    """A connection that is connected once, and writes under a lock that can be had."""

    Channel = Channel

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        #: Held while something is written. py-amqp has such a lock too, but out of
        #: reach, and whoever closes must neither cut a frame nor wait for ever.
        self.writing = threading.Lock()
        super().__init__(
            *args,
            **{
                **kwargs,
                "frame_handler": frames.Frames,
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
            # py-amqp frees the socket for OSErrors only; a refused log-in is none.
            self.collect()
            raise
        _open.add(self)
        return result

    def _on_tune(self, *agreed: int) -> None:
        super()._on_tune(*agreed)
        self.transport.largest = self.frame_max

    def _warn_force_connect(self, attr: str) -> None:
        raise RecoverableConnectionError("the connection is closed")

    def _locked_writer(self, connection: t.Any, transport: t.Any) -> t.Any:
        write_frame = frame_writer(connection, transport)

        def write(*frame: t.Any) -> t.Any:
            with self.writing, self._whole(transport):
                return write_frame(*frame)

        return write

    def write(self, data: bytes) -> None:
        """Write whole frames."""
        with self.writing:
            self.write_held(data)

    def write_held(self, data: bytes) -> None:
        """Write whole frames; the caller holds :attr:`writing`."""
        transport = self.transport
        with self._whole(transport):
            transport.write(data)
            self.bytes_sent += 1

    @contextlib.contextmanager
    def _whole(self, transport: t.Any) -> t.Iterator[None]:
        try:
            yield
        except BaseException:
            # A timeout, or whatever stopped it, may have left half a frame behind:
            # what comes next would be garbage to the broker.
            transport.connected = False
            raise

    def read_available(self) -> None:
        """Wait for one frame, and take all others that came with it."""
        transport = self.transport
        transport.await_frame()
        there = True
        while there:
            if not self._take_deliveries(transport):
                self.on_inbound_frame(transport.read_frame())
            there = self._transport is transport and transport.has_frame

    def _take_deliveries(self, transport: t.Any) -> bool:
        """Take the deliveries that come next as wholes; whether there was one."""
        taken = False
        for number, channel in list((self.channels or {}).items()):
            if number == 0 or self.on_inbound_frame.expects_content(number):
                continue
            while (delivery := transport.take_delivery(number)) is not None:
                taken = True
                self.bytes_recv += 1
                channel.on_delivered(delivery)
                if self._transport is not transport:
                    return True
        return taken


class Transport(pyamqp.Transport):
    """``amqp://``"""

    Connection = Connection

    def register_with_event_loop(self, connection: t.Any, loop: t.Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]

        def read_buffered() -> None:
            """Deliver what was read already: the loop waits for the socket only."""
            if not connection.connected:
                loop.on_tick.discard(read_buffered)
            elif connection.transport.has_frame:
                self.on_readable(connection, loop)  # type: ignore[no-untyped-call]

        loop.on_tick.add(read_buffered)


class TLSTransport(Transport):
    """``amqps://``"""

    def __init__(self, client: t.Any, **kwargs: t.Any) -> None:
        super().__init__(client, **kwargs)  # type: ignore[no-untyped-call]
        client.ssl = client.ssl or True


def _leave_to_the_parent() -> None:
    """Let go of every connection in a forked child, without a word to the broker.

    They belong to the parent; under gevent the child even has copies of the greenlets
    that read them, and would take the parent's messages out of the shared socket.
    """
    with contextlib.suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        for connection in list(_open):
            _replace(connection, nothing)
        os.close(nothing)
    _open.clear()


def _replace(connection: Connection, nothing: int) -> None:
    transport = connection._transport
    if transport is None or transport.sock is None:
        return
    transport.connected = False
    if transport.sock.fileno() >= 0:
        # Closing it would do as well, but then its number is somebody else's soon,
        # and the socket object would close that when it is collected.
        os.dup2(nothing, transport.sock.fileno(), inheritable=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)
