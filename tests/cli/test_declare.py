"""`flask qconsume declare`."""

from __future__ import annotations

from .commands import Commands
from .commands import invoke
from .conftest import MakeApp


def test_memory_is_refused_with_the_reason(make_app: MakeApp) -> None:
    result = invoke(make_app(), "declare")
    assert result.exit_code == 1
    assert result.output.startswith("Error: Cannot declare queues: 'memory://' is a")


def check_declare_and_prune(commands: Commands) -> None:
    commands.config["DECLARE"] = "never"
    done = commands.run("declare")
    assert done.returncode == 0, done.stderr
    assert "orders.bill: bill (gets 'order.created', 'order.paid' from" in done.stdout
    assert "bill.suspects, bill.dead" in done.stdout
    assert commands.run("publish", "order.paid", "{}").returncode == 0
    delayed = commands.run("publish", "order.paid", "{}", "--delay", "1")
    assert delayed.returncode == 0, delayed.stderr

    done = commands.run("declare", "--prune")
    assert done.stdout.endswith("There are no stale bindings.\n")

    shop = commands.folder / "shop.py"
    shop.write_text(shop.read_text().replace(', "order.paid"]', "]"))
    kept = commands.run("declare", "--prune", input="n\n")
    assert kept.returncode == 1
    assert "stale: bill gets 'order.paid' from the exchange 'qconsume'" in kept.stdout
    assert "Removed" not in kept.stdout

    gone = commands.run("declare", "--prune", input="y\n")
    assert gone.returncode == 0
    assert gone.stdout.endswith("Removed 1 stale binding.\n")
    again = commands.run("declare", "--prune", "--yes")
    assert again.stdout.endswith("There are no stale bindings.\n")


def test_redis_is_declared_and_pruned(on_redis: Commands) -> None:
    check_declare_and_prune(on_redis)


def test_rabbitmq_is_declared_and_pruned(on_rabbitmq: Commands) -> None:
    check_declare_and_prune(on_rabbitmq)
