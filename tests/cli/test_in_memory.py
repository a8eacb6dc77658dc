"""The broker in memory without consumers, and workers without consumers."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from ..servers.ports import free_port
from .commands import FLASK
from .commands import Commands
from .commands import get

SHOP = """
from flask import Flask
from flask_qconsume import ConsumerBlueprint, PublishError, QConsume

qconsume = QConsume()
bp = ConsumerBlueprint("orders", __name__)
other = ConsumerBlueprint("parcels", __name__)


@bp.consumer("bill")
def bill(order):
    print("billed", order, flush=True)
    if order == "first":
        qconsume.publish("bill", "by a handler")


@other.consumer("send")
def send(parcel):
    pass


@bp.get("/")
def index():
    try:
        return {"id": qconsume.publish("bill", "by a view")}
    except PublishError as error:
        return {"error": str(error), "errors": [str(e) for e in error.errors]}


def create_app(*blueprints):
    app = Flask(__name__)
    app.config.from_mapping(QCONSUME_BROKER_URL="memory://")
    app.config.from_prefixed_env()
    qconsume.init_app(app)
    for blueprint in blueprints or (bp,):
        app.register_blueprint(blueprint)
    return app
"""

REFUSED = (
    "Cannot publish a message: 'memory://' is a broker within one process (memory), and"
    " nothing consumes in this one. Set 'QCONSUME_BROKER_URL' to a broker that"
    " processes share: 'sqlite:///qconsume.db', a file (pip install"
    " 'Flask-QConsume[sql]'), or a server, such as 'redis://localhost/0'. Or consume"
    " beside the web server: 'flask qconsume run --web HOST:PORT'. A test that starts"
    " its worker later sets 'TESTING'."
)


@pytest.fixture
def shop(commands: Commands) -> Commands:
    (commands.folder / "shop.py").write_text(SHOP)
    return commands


def add_code(shop: Commands, code: str) -> None:
    with (shop.folder / "shop.py").open("a") as file:
        file.write(textwrap.dedent(code))


def run_script(shop: Commands, code: str) -> str:
    """Run a script with the app in a process of its own, and return its output."""
    before = "from shop import *\napp = create_app()\napp.app_context().push()\n"
    (shop.folder / "script.py").write_text(before + textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, "-m", "gevent.monkey", "script.py"],
        cwd=shop.folder,
        env=shop.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.process
def test_a_web_server_alone_publishes_nothing(shop: Commands) -> None:
    port = free_port()
    with shop.spawn([*FLASK, "run", "--port", f"{port}"]) as server:
        server.wait_for("Running on")
        assert get(f"http://127.0.0.1:{port}/")["error"] == REFUSED


@pytest.mark.process
def test_every_message_of_many_is_refused(shop: Commands) -> None:
    output = run_script(
        shop,
        """
        try:
            qconsume.publish_many([("bill", 1), ("bill", 2)])
        except PublishError as error:
            print(len(error.errors), {type(e).__name__ for e in error.errors})
        """,
    )
    assert output == "2 {'PublishError'}\n"


@pytest.mark.process
def test_hooks_handlers_and_views_of_a_worker_publish(shop: Commands) -> None:
    add_code(
        shop,
        """
        @bp.before_worker
        def begin():
            qconsume.publish("bill", "first")
        """,
    )
    port = free_port()
    with shop.start("run", "--web", f"127.0.0.1:{port}") as worker:
        worker.wait_for("Serving on")
        assert "id" in get(f"http://127.0.0.1:{port}/")
        for origin in ("first", "by a handler", "by a view"):
            worker.wait_for(f"billed {origin}")
        assert worker.end() == 0
    assert "Cannot consume" not in worker.output


@pytest.mark.process
def test_captured_and_tested_messages_need_no_worker(shop: Commands) -> None:
    output = run_script(
        shop,
        """
        with qconsume.test_client(app).capture() as published:
            qconsume.publish("bill", "captured")
        print(published[0].body)
        print(len(qconsume.test_client(app).deliver("orders.bill", "first").published))
        app.testing = True
        qconsume.publish("bill", "tested")
        """,
    )
    assert output == "captured\nbilled first\n1\n"


@pytest.mark.process
def test_a_worker_of_another_app_with_the_same_url_is_enough(
    shop: Commands,
) -> None:
    shop.config["BROKER_URL"] = "memory://shared"
    output = run_script(
        shop,
        """
        import gevent
        from flask_qconsume.running.worker import Worker
        web = Flask("web")
        web.config.from_prefixed_env()
        QConsume(web)
        publish = web.extensions["qconsume"].publish
        try:
            publish("bill", "too early")
        except PublishError:
            print("refused")
        worker = Worker(app)
        worker.start()
        publish("bill", "by another app")
        worker.stop()
        publish("bill", "too late, but there was a worker")
        """,
    )
    assert output.startswith("refused\n")


@pytest.mark.process
def test_a_worker_without_a_web_server_warns(shop: Commands) -> None:
    with shop.start("run") as worker:
        worker.wait_for("Consuming orders.bill")
        assert worker.end() == 0
    (line,) = [line for line in worker.output.splitlines() if "qconsume.run " in line]
    assert "WARNING" in line
    assert line.endswith(
        "Cannot consume what other processes publish: 'memory://' is a broker within"
        " one process (memory), so only code in this process can publish to its"
        " consumers. Set 'QCONSUME_BROKER_URL' to a broker that processes share:"
        " 'sqlite:///qconsume.db', a file (pip install 'Flask-QConsume[sql]'), or a"
        " server, such as 'redis://localhost/0'. Or serve the app here: 'flask qconsume"
        " run --web HOST:PORT'."
    )


FORGOTTEN = """
def create_nothing():
    app = create_app(Blueprint("plain", __name__))
    return app

from flask import Blueprint
"""


def test_a_blueprint_that_was_not_registered_is_named(on_redis: Commands) -> None:
    (on_redis.folder / "shop.py").write_text(SHOP + FORGOTTEN)
    command = [*FLASK[:-1], "shop:create_nothing"]
    with on_redis.start("run", command=command) as worker:
        worker.wait_for("Consuming nothing")
        assert worker.end() == 0
    (line,) = [line for line in worker.output.splitlines() if "nothing" in line]
    assert "WARNING" in line
    assert line.endswith(
        "Consuming nothing: the app has no consumers. Was this forgotten:"
        " app.register_blueprint(…) for the blueprint 'orders';"
        " app.register_blueprint(…) for the blueprint 'parcels'?"
        " The consumers of a nested blueprint come with the blueprint around it."
    )
    listed = on_redis.run("list", command=command).stdout
    assert listed.startswith("Nothing to list: the app has no consumers. Was this")


def test_an_extension_that_was_not_initialised_is_named(on_redis: Commands) -> None:
    (on_redis.folder / "shop.py").write_text(
        "from flask import Flask\nfrom flask_qconsume import QConsume\n"
        "qconsume = QConsume()\nqconsume.add_consumer('bill', print)\n"
        "def create_app():\n    app = Flask(__name__)\n"
        "    app.config.from_prefixed_env()\n    QConsume(app)\n    return app\n"
    )
    with on_redis.start("run") as worker:
        worker.wait_for(
            "Was this forgotten: init_app(app) of a 'QConsume' that has consumers?"
        )
        assert worker.end() == 0


def test_a_forgotten_blueprint_beside_other_ones_is_named(on_redis: Commands) -> None:
    """The worker runs the consumers of the other blueprint."""
    (on_redis.folder / "shop.py").write_text(
        "from flask import Flask\nfrom flask_qconsume import *\n"
        "orders, mails = map(ConsumerBlueprint, ('orders', 'mail'), 'ab')\n"
        "orders.add_consumer('bill', print)\nmails.add_consumer('mail', print)\n"
        "def create_app():\n    app = Flask(__name__)\n"
        "    app.config.from_prefixed_env()\n    QConsume(app)\n"
        "    app.register_blueprint(orders)\n    return app\n"
    )
    with on_redis.start("run") as worker:
        worker.wait_for("Consuming orders.print")
        assert worker.end() == 0
    (line,) = [line for line in worker.output.splitlines() if "WARNING" in line]
    assert "Not all consumers have an app. Was this forgotten:" in line
    assert "app.register_blueprint(…) for the blueprint 'mail'?" in line


def test_disabled_consumers_are_named_as_the_reason(on_redis: Commands) -> None:
    (on_redis.folder / "shop.py").write_text(SHOP)
    on_redis.config["CONSUMERS"] = {"orders.bill": {"enabled": False}}
    with on_redis.start("run") as worker:
        worker.wait_for("nothing: 'QCONSUME_CONSUMERS' disables every consumer")
        assert worker.end() == 0


def test_an_app_without_consumers_learns_how_to_add_one(on_redis: Commands) -> None:
    (on_redis.folder / "shop.py").write_text(
        "from flask import Flask\nfrom flask_qconsume import QConsume\n"
        "app = Flask(__name__)\napp.config.from_prefixed_env()\nQConsume(app)\n"
    )
    with on_redis.start("run", command=[*FLASK[:-1], "shop"]) as worker:
        worker.wait_for("nothing: the app has no consumers. Decorate a function by")
        assert worker.end() == 0


@pytest.mark.process
def test_a_stop_logs_the_number_of_lost_messages(shop: Commands) -> None:
    """The count includes retries and dead letters."""
    add_code(
        shop,
        """
        @bp.consumer("fail", retry={"min_delay": 600})
        def fail(order):
            raise ValueError(order)

        @bp.consumer("die", retry={"max_attempts": 1})
        def die(order):
            raise ValueError(order)

        @bp.before_worker
        def begin():
            qconsume.publish_many([("fail", 1), ("fail", 2), ("die", 3)])
        """,
    )
    with shop.start("run") as worker:
        worker.wait_for("again in", 2)
        worker.wait_for("is a dead letter after 1 attempt: failed its only attempt")
        assert worker.end() == 0
    lost, stopped = worker.output.splitlines()[-2:]
    assert "WARNING" in lost
    assert lost.endswith(
        "3 messages in memory, retries and dead letters included: lost when this"
        " process ends"
    )
    assert stopped.endswith("Stopped cleanly")
