"""Delivery tags: the broker understands each settlement that we send."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flask_qconsume.brokers.rabbitmq.delivery_tags import DeliveryTags


def settle_as_rabbitmq(outstanding: list[int], tag: int, multiple: bool) -> list[int]:
    """Settle by RabbitMQ's rule: the tag must be outstanding, also with 'multiple'."""
    assert tag in outstanding, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
    if multiple:
        return [other for other in outstanding if other > tag]
    return [other for other in outstanding if other != tag]


def test_a_prefix_is_settled_by_its_last_outstanding_tag() -> None:
    """Tag 2 is settled alone first, so the broker no longer knows it."""
    tags = DeliveryTags()

    assert tags.settle([2]) == [(2, False)]
    assert tags.settle([1]) == [(1, True)]
    assert tags.settle([3, 5]) == [(3, True), (5, False)]


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 4), min_size=12))
def test_any_order_of_settling_is_understood_by_the_broker(
    order: list[int], sizes: list[int]
) -> None:
    tags, outstanding = DeliveryTags(), list(range(1, 13))
    while order:
        batch, order = order[: sizes[0]], order[sizes.pop(0) :]
        expected = [tag for tag in outstanding if tag not in batch]
        for tag, multiple in tags.settle(batch):
            outstanding = settle_as_rabbitmq(outstanding, tag, multiple)
        assert outstanding == expected
