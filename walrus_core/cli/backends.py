"""``walrus backends``: what is installed, what it can do here, and which one would be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

import click
from attrs import asdict, field, frozen

from walrus_core import __version__
from walrus_core.builder import WalrusBuilder
from walrus_core.cli.common import log_options, log_settings
from walrus_core.cli.output import add_row, json_text, make_table, report_facts, show_table, write_line
from walrus_core.config import Options
from walrus_core.errors import PluginError, WalrusError
from walrus_core.memory import MemoryBackend
from walrus_core.plugins import OBSERVER_GROUP, InstalledPlugin, installed_plugins, load_backend


@frozen(kw_only=True)
class BackendFacts:
    """One backend that some distribution offers; ``error`` says why it cannot be used.

    ``api`` is None and ``capabilities`` are empty where it could not be loaded.
    """

    name: str
    distribution: str
    version: str
    is_chosen: bool
    api: Optional[int] = None
    capabilities: tuple[str, ...] = ()
    error: Optional[str] = None
    probe: Mapping[str, Any] = field(factory=dict)


@click.command()
@log_options
def backends(data_dir: Optional[str], key: Optional[str], backend: Optional[str], as_json: bool) -> None:
    """List the installed backends: where each is from, what it can do here, which one is chosen.

    A backend that cannot be loaded is listed with the reason. Installed observers are named.

    The one chosen: --backend, else $WALRUS_BACKEND, else walrus.toml, else fd, else mmap. Where
    that one is missing or broken, the list ends with exit status 5.
    """
    settings = log_settings(data_dir, key, backend)
    options, problem = choose(settings)
    blocked = () if options is None else options.blocked_plugins
    offered = [(MemoryBackend.name, "walrus-core", __version__)]
    for name, plugins in sorted(installed_plugins(blocked).items()):
        offered += [(name, plugin.distribution, plugin.version) for plugin in plugins]
    chosen = None if options is None else str(options.backend)
    if options is not None and chosen not in {name for name, _, _ in offered}:
        problem = load_problem(chosen, options)
    found = [describe(*one, options) for one in offered]
    observers = [
        one for _, many in sorted(installed_plugins(blocked, OBSERVER_GROUP).items()) for one in many
    ]
    if as_json:
        named = [{"name": o.name, "distribution": o.distribution, "version": o.version} for o in observers]
        listed = [report_facts(facts) for facts in found]
        write_line(json_text({"chosen": chosen, "backends": listed, "observers": named}))
    else:
        show(found, observers)
    if problem is not None:
        raise problem
    broken = [facts for facts in found if facts.is_chosen and facts.error]
    if broken:
        raise PluginError(f"{broken[0].error}")


def choose(settings: WalrusBuilder) -> tuple[Optional[Options], Optional[PluginError]]:
    """Return the options with the backend's name, or why there is none. Raises: ConfigError."""
    try:
        return settings.options(), None
    except PluginError as error:
        return None, error


def load_problem(name: Optional[str], options: Options) -> Optional[PluginError]:
    """Return why a backend that nobody offers cannot be loaded."""
    try:
        load_backend(name or "", options={}, blocked=options.blocked_plugins).close()
    except PluginError as error:
        return error
    return None


def describe(name: str, distribution: str, version: str, options: Optional[Options]) -> BackendFacts:
    """Load one backend and ask it. What it raises, of whatever type, becomes its ``error``."""
    is_chosen = options is not None and options.backend == name
    given: Mapping[str, Any] = options.backend_options if options is not None and is_chosen else {}
    durable_writes = options is not None and is_chosen and options.durable_writes
    facts: dict[str, Any] = {}
    error: Optional[str] = None
    try:
        backend = load_backend(name, options=given, durable_writes=durable_writes)
        try:
            able = asdict(backend.capabilities)
            facts = {"api": backend.api, "capabilities": tuple(flag for flag, has in able.items() if has)}
            facts["probe"] = dict(backend.probe())
        finally:
            backend.close()
    except WalrusError as found:
        error = str(found)
    except (Exception, SystemExit) as found:  # foreign code: one broken plugin must not end the list
        error = f"{type(found).__name__}: {found}"
    return BackendFacts(
        name=name, distribution=distribution, version=version, is_chosen=is_chosen, error=error, **facts
    )


def show(found: list[BackendFacts], observers: list[InstalledPlugin]) -> None:
    """Write the lists as tables; the backend chosen is marked."""
    table = make_table(
        (("", False), ("backend", False), ("from", False), ("API", True), ("what it says", False))
    )
    for facts in found:
        says = [f"can: {', '.join(facts.capabilities) or 'nothing more'}"] if facts.api is not None else []
        says += [f"{fact}: {value}" for fact, value in facts.probe.items()]
        if facts.error is not None:
            says.append("broken: " + " ".join(facts.error.split()))
        if facts.is_chosen:
            says.insert(0, "chosen here")
        add_row(
            table,
            [
                "*" if facts.is_chosen else "",
                facts.name,
                f"{facts.distribution} {facts.version}",
                "" if facts.api is None else str(facts.api),
                "\n".join(says),
            ],
        )
    show_table(table)
    if observers:
        table = make_table((("observer", False), ("from", False)))
        for one in observers:
            add_row(table, [one.name, f"{one.distribution} {one.version}"])
        show_table(table)
