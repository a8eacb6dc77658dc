"""Commits: what they hand out, and what becomes of those that fail."""

from __future__ import annotations

import typing as t

import pytest
from confluent_kafka import KafkaError

from flask_qconsume.brokers.kafka.client.commits import OffsetCommits
from flask_qconsume.brokers.kafka.client.offsets import METADATA_LIMIT_BYTES
from flask_qconsume.brokers.kafka.client.partition import AssignedPartition
from flask_qconsume.brokers.kafka.client.shared_state import SharedState
from flask_qconsume.brokers.kafka.client.terms import ConsumerTerms

from .fakes import client
from .fakes import filled
from .fakes import new_partition

EVERYTHING = 10**6


Committing = tuple[OffsetCommits, SharedState, t.Any]


@pytest.fixture
def committing(shared: SharedState) -> Committing:
    """With a room of 10, and a client that does nothing yet."""
    return OffsetCommits(ConsumerTerms(10), shared), shared, client()


def marked(count: int = 3) -> AssignedPartition:
    one = filled(new_partition(), count)
    one.mark(EVERYTHING, 0.0)
    return one


def test_a_commit_that_fails_is_made_again_and_hands_out_nothing(
    committing: Committing,
) -> None:
    commits, shared, asked = committing
    one = marked()
    commits.send(asked, [one])
    assert len(commits.unanswered) == 3
    moving = KafkaError(KafkaError.REBALANCE_IN_PROGRESS)
    assert commits.on_answer(moving, []) == []
    assert (len(one.awaiting_commit), one.is_uncommitted, commits.is_pending) == (
        3,
        True,
        False,
    )
    assert not shared.ready
    commits._next_commit = 0.0
    commits.send(asked, [one])
    assert commits.on_answer(None, asked.commits[1]) == []
    assert [len(each) for each in shared.ready] == [3]


def test_the_answer_to_a_commit_that_was_recalled_is_not_the_next_ones(
    committing: Committing,
) -> None:
    commits, shared, asked = committing
    one = marked()
    commits.send(asked, [one])
    commits.recall()
    one.offsets.settle(0)
    commits._next_commit = 0.0
    commits.send(asked, [one])
    assert commits.on_answer(None, asked.commits[0]) == []
    assert not shared.ready
    commits.on_answer(None, asked.commits[1])
    assert [len(each) for each in shared.ready] == [3]


def test_metadata_that_is_too_long_for_the_broker_is_made_shorter(
    committing: Committing,
) -> None:
    commits, _, asked = committing
    one = marked()
    commits.send(asked, [one])
    long = KafkaError(KafkaError.OFFSET_METADATA_TOO_LARGE)
    assert commits.on_answer(long, []) == []
    assert one.metadata_limit == METADATA_LIMIT_BYTES // 2


def test_why_a_commit_failed_is_logged(committing: Committing) -> None:
    commits, shared, asked = committing
    one = marked()
    commits.send(asked, [one])
    refused = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)
    assert commits.on_answer(refused, []) == [refused]
    asked.fails = KafkaError(KafkaError._FAIL)
    commits._next_commit = 0.0
    commits.send(asked, [one])
    assert [level for level, _ in shared.log_lines] == [30]
    commits.send_final_and_wait(asked, [one])
    assert len(shared.log_lines) == 2


def test_more_is_marked_ahead_the_faster_it_goes(committing: Committing) -> None:
    commits, _, asked = committing
    commits.settled_count = 100
    commits.send(asked, [])
    assert commits.room == 210
    for _ in range(40):
        commits._next_commit = 0.0
        commits.send(asked, [])
    assert commits.room == 10
