"""Writers take the lock in the order of their arrival, also beside other processes."""

from __future__ import annotations

import pathlib
import typing as t

import gevent
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ..harness.scripts import run_script
from ..waiting import spend
from ..waiting import wait_for
from .engines import Engines
from .engines import Tea
from .engines import count


def write(engine: sa.Engine, **values: t.Any) -> None:
    with Session(engine) as session:
        session.add(Tea(**values))
        session.commit()


@pytest.mark.parametrize("begin", ["", "BEGIN IMMEDIATE", "begin  exclusive"])
def test_writers_take_turns(engines: Engines, begin: str) -> None:
    engine = engines.prepare()
    turns: list[int] = []

    def write_often(number: int) -> None:
        for _ in range(5):
            with Session(engine) as session:
                if begin:
                    session.execute(sa.text(begin))
                session.add(Tea())
                session.flush()
                turns.append(number)
                spend(0.002)
                session.commit()

    gevent.joinall([gevent.spawn(write_often, n) for n in range(4)], raise_error=True)
    assert turns == [0, 1, 2, 3] * 5


def test_a_writer_that_is_interrupted_leaves_the_queue(engines: Engines) -> None:
    engine = engines.prepare(timeout=3600)
    with Session(engine) as holder:
        holder.add(Tea(id=1))
        holder.flush()
        writers = [gevent.spawn(write, engine, id=id) for id in (2, 3, 4)]
        gevent.idle()
        gevent.killall(writers[:2])
        holder.commit()
    wait_for(lambda: writers[2].dead)
    assert writers[2].successful()
    write(engine, id=5)
    assert count(engine) == 3


def test_a_writer_that_waits_too_long_lets_the_next_one_try(engines: Engines) -> None:
    engine = engines.prepare(timeout=0.05)
    with Session(engine) as holder:
        holder.add(Tea(id=1))
        holder.flush()
        writers = [gevent.spawn(write, engine, id=id) for id in (2, 3)]
        gevent.joinall(writers)
        holder.commit()
    assert [type(writer.exception).__name__ for writer in writers] == [
        "OperationalError"
    ] * 2
    write(engine, id=4)
    assert count(engine) == 2


THREADS = """
import threading
import sqlalchemy as sa
from flask_qconsume.integrations.sqlalchemy import prepare_engine

engine = sa.create_engine({url!r})
prepare_engine(engine)

def write():
    for _ in range(10):
        with engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO tea (price) VALUES (1)")

threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
engine.dispose()
"""


@pytest.mark.process
def test_threads_of_processes_that_gevent_has_not_patched_write(
    engines: Engines,
) -> None:
    engine = engines.prepare(timeout=30)
    script = THREADS.format(url=engines.url)
    processes = [gevent.spawn(run_script, script, measured=False) for _ in range(2)]
    while not all(process.dead for process in processes):
        write(engine, price=2)
        gevent.sleep(0)
    assert [process.get().stderr for process in processes] == ["", ""]
    with Session(engine) as session:
        written = session.scalars(sa.select(Tea.price).where(Tea.price == 1)).all()
    assert len(written) == 80


FORK = """
import os, subprocess, sys, threading, time
import sqlalchemy as sa
from flask_qconsume.integrations.sqlalchemy import is_prepared, prepare_engine
from tests.waiting import wait_for

HOLD = '''
import sqlite3
connection = sqlite3.connect({path!r}, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
input()
connection.execute("COMMIT")
connection.close()
'''

engine = sa.create_engine("sqlite:///{path}")
prepare_engine(engine, timeout=30)

def write():
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO tea (price) VALUES (1)")

def waits():
    frames = sys._current_frames().values()
    return any(frame.f_code.co_name == "retry_while_busy" for frame in frames)

write()
pipe = subprocess.PIPE
holder = subprocess.Popen([sys.executable, "-c", HOLD], stdin=pipe, stdout=pipe)
assert holder.stdout.readline() == b"held\\n"
waiting = threading.Thread(target=write)
waiting.start()
wait_for(waits)
pid = os.fork()
if not pid:
    engine.dispose(close=False)
    begun = time.monotonic()
    write()
    os._exit(int(time.monotonic() - begun > 20 or not is_prepared(engine)))
holder.communicate(b"go on\\n")
waiting.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
engine.dispose()
"""


@pytest.mark.process
def test_a_forked_child_does_not_wait_for_its_parents_writers(
    engines: Engines, tmp_path: pathlib.Path
) -> None:
    engine = engines.prepare()
    done = run_script(FORK.format(path=str(tmp_path / "shop.db")), measured=False)
    assert done.stdout.strip() == "0", done.stderr
    assert count(engine) == 3
