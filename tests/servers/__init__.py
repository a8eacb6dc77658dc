"""Throwaway brokers, a browser, and what watches, each with its own ports and folder.

Must not know the package under test.
"""

from __future__ import annotations

from .chromium import Chromium as Chromium
from .collector import Collector as Collector
from .disk import SmallDisk as SmallDisk
from .jaeger import Jaeger as Jaeger
from .kafka import Kafka as Kafka
from .kafka import KafkaCluster as KafkaCluster
from .postgresql import Database as Database
from .postgresql import PostgreSQL as PostgreSQL
from .postgresql import PostgreSQLPair as PostgreSQLPair
from .prometheus import Prometheus as Prometheus
from .rabbitmq import RabbitMQ as RabbitMQ
from .rabbitmq import Vhost as Vhost
from .redis import Redis as Redis
from .redis_cluster import RedisCluster as RedisCluster
from .redis_sentinel import RedisSentinel as RedisSentinel
from .server import Server as Server
from .server import ServerError as ServerError
from .sqlite import SQLiteFile as SQLiteFile
