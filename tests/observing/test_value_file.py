"""The numbers of one process, in a file and in memory."""

from __future__ import annotations

import os
import pathlib
import resource
import typing as t

import pytest

from flask_qconsume.observing.series import Series
from flask_qconsume.observing.series import add_up
from flask_qconsume.observing.value_file import CHUNK_BYTES
from flask_qconsume.observing.value_file import ForeignFile
from flask_qconsume.observing.value_file import ValueFile
from flask_qconsume.observing.value_file import read_values

PLAIN = ("qconsume_messages_total", ("bill", "ack"), ())
HISTOGRAM = ("qconsume_queue_seconds", ("bill",), (0.5, 1.0))


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "values"


@pytest.fixture
def file(path: pathlib.Path) -> t.Iterator[ValueFile]:
    made = ValueFile(os.open(path, os.O_RDWR | os.O_CREAT))
    yield made
    made.close()


def test_other_processes_read_the_numbers_from_the_file(
    file: ValueFile, path: pathlib.Path
) -> None:
    counter, histogram = file.add([PLAIN, HISTOGRAM])
    counter.values[counter.first] += 3
    histogram.values[histogram.first + 2] += 1
    histogram.values[histogram.first + 3] += 7.25
    expected = [Series(*PLAIN, (3,)), Series(*HISTOGRAM, (0, 0, 1, 7.25))]
    assert read_values(path.read_bytes()) == (os.getpid(), expected)
    assert file.read() == expected


def test_series_beyond_the_first_chunk_are_kept_too(
    file: ValueFile, path: pathlib.Path
) -> None:
    for number in range(2_000):
        [slots] = file.add([("messages", (f"consumer-{number}",), ())])
        slots.values[slots.first] += number
    _, series = read_values(path.read_bytes())
    assert path.stat().st_size > CHUNK_BYTES
    assert {each.labels[0]: each.values[0] for each in series} == {
        f"consumer-{number}": number for number in range(2_000)
    }


def test_series_for_which_the_disk_has_no_space_are_counted_in_memory(
    file: ValueFile, path: pathlib.Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES, before[1]))
    try:
        for number in range(2_000):
            [slots] = file.add([("messages", (str(number),), ())])
            slots.values[slots.first] += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.problem is not None
    assert len(file.read()) == 2_000
    _, series = read_values(path.read_bytes())
    assert 0 < len(series) < 2_000


def test_a_file_that_is_cut_off_or_foreign_is_refused(
    file: ValueFile, path: pathlib.Path
) -> None:
    file.add([PLAIN, HISTOGRAM])
    good = path.read_bytes()
    damaged = good[:100] + b"\xff" * 100 + good[200:]
    older = good.replace(b"QCMETRI1", b"QCMETRI0")
    for data in (b"", good[:1_000], b"x" * CHUNK_BYTES, damaged, older):
        with pytest.raises(ForeignFile):
            read_values(data)


def test_a_chunk_that_is_reserved_only_is_empty(
    file: ValueFile, path: pathlib.Path
) -> None:
    file.add([PLAIN])
    _, series = read_values(path.read_bytes() + bytes(CHUNK_BYTES))
    assert series == [Series(*PLAIN, (0,))]


def test_equal_series_are_added_up() -> None:
    one = Series(*HISTOGRAM, (1, 2, 3, 4.5))
    other_bounds = Series("qconsume_queue_seconds", ("bill",), (9.0,), (1, 1, 1))
    assert add_up([one, other_bounds, one, Series(*PLAIN, (1,))]) == [
        Series(*HISTOGRAM, (2, 4, 6, 9)),
        other_bounds,
        Series(*PLAIN, (1,)),
    ]
