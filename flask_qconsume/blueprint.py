"""A blueprint for consumers as well as views."""

from __future__ import annotations

import inspect
import os
import typing as t

from flask import Blueprint

from .registration.consumer import ConsumerOptions
from .registration.scaffold import ConsumerScaffold

#: Flask's mark for "not given", which differs from ``None`` and has no public name.
_NOT_GIVEN: t.Any = inspect.signature(Blueprint).parameters["cli_group"].default


class ConsumerBlueprint(ConsumerScaffold, Blueprint):
    """A :class:`flask.Blueprint` on which consumers are registered like views.

    It takes the arguments of :class:`flask.Blueprint`, and ``consumer_defaults``, the
    options that its consumers inherit; see :class:`ConsumerScaffold`. Register it by
    ``app.register_blueprint``, before or after ``QConsume.init_app``.
    """

    def __init__(
        self,
        name: str,
        import_name: str,
        static_folder: str | os.PathLike[str] | None = None,
        static_url_path: str | None = None,
        template_folder: str | os.PathLike[str] | None = None,
        url_prefix: str | None = None,
        subdomain: str | None = None,
        url_defaults: dict[str, t.Any] | None = None,
        root_path: str | None = None,
        cli_group: str | None = _NOT_GIVEN,
        *,
        consumer_defaults: ConsumerOptions | None = None,
    ) -> None:
        super().__init__(
            name,
            import_name,
            static_folder,
            static_url_path,
            template_folder,
            url_prefix,
            subdomain,
            url_defaults,
            root_path,
            cli_group,
            consumer_defaults=consumer_defaults,
        )
