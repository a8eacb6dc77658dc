"""How Sphinx builds these pages: ``sphinx-build -n -W -b html docs <folder>``."""

from __future__ import annotations

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "_ext"))

import flask_qconsume

project = "Flask-QConsume"
author = "the Flask-QConsume authors"
copyright = f"2026, {author}"
release = flask_qconsume.__version__
version = release

extensions = ["sphinx.ext.autodoc", "from_code", "faults"]
exclude_patterns = ["_build"]
default_role = None
# What stands between quotes is often to be typed.
smartquotes = False
nitpicky = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# Nothing is fetched while the pages are built, so names of other projects have no link.
nitpick_ignore_regex = [
    ("py:.*", r"(flask|werkzeug|kombu|gevent|marshmallow|blinker|pytest)\..*"),
    ("py:.*", r"sqlalchemy\..*"),
    ("py:.*", r"(typing|t|collections|datetime|threading|logging|asyncio|time|os)\..*"),
    # Protocols for objects of other packages.
    ("py:class", r"flask_qconsume\..*\.(KombuExchange|KombuQueue|SchemaLike)"),
    # The type of a decorated function.
    ("py:class", r".*\.F"),
    ("py:.*", r"(Any|Callable|Iterable|Iterator|Mapping|Sequence|Flask|Blueprint)"),
    ("py:.*", r"(str|int|float|bool|bytes|dict|list|tuple|type|object|None)"),
    ("py:exc", r"[A-Z][A-Za-z]*(Error|Exception)|BaseException|Exception"),
    ("py:class", r"(Exception|BaseException|.*Error)"),
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_title = f"Flask-QConsume {release}"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
