"""Handlers of a worker with Flask-SQLAlchemy on a prepared SQLite file."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from flask_qconsume.integrations.sqlalchemy import prepare_engine

from ..running.conftest import AppWithWorkers
from ..running.conftest import worker_app as worker_app
from ..waiting import spend
from ..waiting import wait_for
from .engines import Base


class Order(Base):
    """What the handlers change."""

    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    billed: Mapped[int] = mapped_column(default=0)


@pytest.fixture
def db(worker_app: AppWithWorkers, tmp_path: pathlib.Path) -> t.Iterator[SQLAlchemy]:
    app = worker_app.app
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.db"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"max_overflow": 20}
    db = SQLAlchemy(app, add_models_to_shell=False)
    with app.app_context():
        prepare_engine(db.engine)
        Base.metadata.create_all(db.engine)
        db.session.add_all(Order(id=id) for id in range(20))
        db.session.commit()
        yield db
        db.session.remove()
        db.engine.dispose()


def test_handlers_that_load_wait_and_write_all_succeed_at_once(
    worker_app: AppWithWorkers, db: SQLAlchemy, caplog: pytest.LogCaptureFixture
) -> None:
    def bill(id: int) -> None:
        order = db.session.get(Order, id)
        assert order is not None
        spend(0.01)  # The payment gateway.
        order.billed += 1
        db.session.commit()

    worker_app.qconsume.add_consumer("billing", bill, name="billing", concurrency=20)
    worker = worker_app.start()
    for _ in range(5):
        for id in range(20):
            worker_app.publish("billing", id)
    wait_for(lambda: sum(s.counts.total() for s in worker.subscriptions) == 100)
    assert worker.stop()

    assert db.session.query(Order.billed).distinct().all() == [(5,)]
    # Blueprints of other tests may be there still, of which the worker warns.
    assert [m for m in caplog.messages if "consumers have an app" not in m] == []
