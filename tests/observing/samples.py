"""Samples of metrics, as a scrape shows them."""

from __future__ import annotations

import typing as t

from prometheus_client.parser import text_string_to_metric_families

from flask_qconsume.observing.metrics import Metrics
from flask_qconsume.observing.prometheus import Exposition

Samples = dict[tuple[str, tuple[str, ...]], float]


def parse(text: str) -> Samples:
    """Return the values by name and by the values of the labels."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(metrics: Metrics) -> Samples:
    """Return the samples of a fresh scrape."""
    kind, body = Exposition(metrics).render("text/plain")
    assert kind.startswith("text/plain")
    return parse(body.decode())


def select(samples: Samples, name: str) -> dict[t.Any, float]:
    """Return the samples of a name that are not 0, by the values of their labels."""
    return {key[1]: v for key, v in samples.items() if key[0] == name and v}
