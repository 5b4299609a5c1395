"""What each row asks: a request's words, and what the server says they stand for, become questions that must all be granted.

- An experiment is `experiment/<registry>/<id>`; its runs, with their parameters, metrics and logged models, are one asset,
  `run/<registry>/<id>`, and their bytes another, `artifact/<registry>/<id>`: a log entry for each run would make the log of
  the policy a store of experiments.
- A registered model is `model/<name>`, a version `model/<name>@<number>`. Bytes that a version stands on are its own as well.
- Setting an alias is a promotion of the version it names (unless the alias is configured as a plain one), and takes it away
  from the version that it named before.

Source: ENFORCEMENT.md 3.3.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from sidecar.mlflow import places
from sidecar.mlflow.facts import NEW, Change
from sidecar.mlflow.places import Place, Version
from sidecar.mlflow.plan import About, Meaning, Plan, Shown, Told, Want
from sidecar.mlflow.words import RefusedError, Words
from sidecar.routes import Row

# -- experiments, runs, logged models --------------------------------------------------------------------------------


async def _experiment(about: About) -> Plan:
    experiment = places.experiment(about.words.text("experiment_id"))
    return Plan(wants=(about.want(about.of("experiment", experiment)),))


async def _create_experiment(about: About) -> Plan:
    about.words.text("name")
    wants = [about.want(f"experiment/{about.registry.name}")]
    if about.words.optional("artifact_location"):
        # Somebody else's place, given to one's own experiment, would be read with the rights on the latter.
        wants.append(about.want(about.server, "workspace.manage"))

    def learns(told: Told) -> tuple[Change, ...]:
        at = places.experiment(str(told["experiment_id"]))
        mine = {"owner": about.subject}
        return tuple(Change(name=about.of(kind, at), set=mine, like=NEW) for kind in ("experiment", "run", "artifact"))

    return Plan(wants=tuple(wants), learns=learns)


async def _experiment_by_name(about: About) -> Plan:
    about.words.text("experiment_name")

    def names(told: Told) -> Want:
        return about.want(about.of("experiment", places.experiment(str(told["experiment"]["experiment_id"]))))

    return Plan(names=names)


async def _experiments(about: About) -> Plan:
    return Plan(
        shown=Shown(items="experiments", named=lambda item: about.of("experiment", str(item.get("experiment_id"))))
    )


async def _create_run(about: About) -> Plan:
    experiment = places.experiment(about.words.text("experiment_id"))

    def learns(told: Told) -> tuple[Change, ...]:
        about.upstream.remember(str(told["run"]["info"]["run_id"]), experiment)
        return ()

    return Plan(wants=(about.want(about.of("run", experiment)),), learns=learns)


def _run_words(about: About) -> list[str]:
    """Return every run that the request names."""
    value = about.words.values.get("run_id") or about.words.values.get("run_uuid")
    if isinstance(value, list):  # the one route that takes several of them under this name
        return about.words.texts("run_id")
    return [value] if isinstance(value, str) else about.words.texts("run_ids")


def _logged_words(about: About) -> set[str]:
    """Return every logged model that the request names: a metric may be its as well as the run's."""
    objects = (*about.words.objects("metrics"), *about.words.objects("models"))
    found = {about.words.optional("model_id"), *(str(one.get("model_id") or "") for one in objects)}
    return {places.logged(one) for one in found if one}


async def _run(about: About) -> Plan:
    homes = {await about.upstream.experiment_of_run(places.run(one)) for one in _run_words(about)}
    homes |= {await about.upstream.experiment_of_logged(one) for one in _logged_words(about)}
    return Plan(wants=tuple(about.want(about.of("run", home)) for home in sorted(homes)))


async def _in_experiments(about: About) -> Plan:
    named = {one: about.want(about.of("run", places.experiment(one))) for one in about.words.texts("experiment_ids")}
    return Plan(some=named, field="experiment_ids")


async def _create_logged(about: About) -> Plan:
    home = places.experiment(about.words.text("experiment_id"))
    wants = [about.want(about.of("run", home))]
    if source := about.words.optional("source_run_id"):
        wants.append(
            about.want(about.of("run", await about.upstream.experiment_of_run(places.run(source))), "run.read")
        )

    def learns(told: Told) -> tuple[Change, ...]:
        about.upstream.remember(str(told["model"]["info"]["model_id"]), home)
        return ()

    return Plan(wants=tuple(wants), learns=learns)


async def _logged(about: About) -> Plan:
    model = places.logged(about.words.found[0])
    if about.words.optional("model_id") not in {"", model}:
        raise RefusedError("path and body name two models")
    return Plan(wants=(about.want(about.of("run", await about.upstream.experiment_of_logged(model))),))


# -- bytes -----------------------------------------------------------------------------------------------------------


async def _home(about: About, place: Place) -> str:
    """Return the experiment in which a place lies; the address must agree with what the server says."""
    ask = about.upstream.experiment_of_logged if place.logged else about.upstream.experiment_of_run
    home = await ask(place.of)
    if place.experiment not in {"", home}:
        raise RefusedError("the run or model is of another experiment", tell=False)
    return home


async def _bytes(about: About, place: Place, verb: str) -> tuple[Want, ...]:
    """Return what must be granted to do something with the bytes at a place: those that versions stand on are theirs, too."""
    await about.facts.gathered(about.upstream)
    versions = about.facts.versions_at(place.key)
    if verb == "list":  # who may download a version may walk through it
        verb = "read" if about.facts.covers(place.key) else verb
        versions = versions if verb == "read" else ()
    # Bytes that were approved must not become others.
    theirs = "model.download" if verb in {"read", "list", "presign"} else "model.update"
    home = await _home(about, place)
    return (
        *(about.want(version, theirs) for version in versions),
        about.want(about.of("artifact", home), f"artifact.{verb}"),
    )


async def _at_path(about: About) -> Plan:
    return Plan(wants=await _bytes(about, places.below_root(about.words.found[0]), about.verb))


async def _at_query(about: About) -> Plan:
    return Plan(wants=await _bytes(about, places.below_root(about.words.text("path")), about.verb))


async def _in_parts(about: About) -> Plan:
    file = about.words.text("path")
    if "/" in file:
        raise RefusedError("`path` is the name of one file")
    return Plan(wants=await _bytes(about, places.below_root(f"{about.words.found[0]}/{file}"), about.verb))


async def _of_run(about: About) -> Plan:
    (run,) = _run_words(about)
    place = Place(of=places.run(run), path=places.inner(about.words.optional("path")))
    return Plan(wants=await _bytes(about, place, about.verb))


async def _of_logged(about: About) -> Plan:
    key = "artifact_file_path" if about.verb == "read" else "artifact_directory_path"
    place = Place(of=places.logged(about.words.found[0]), path=places.inner(about.words.optional(key)))
    return Plan(wants=await _bytes(about, place, about.verb))


async def _of_version(about: About) -> Plan:
    await about.facts.gathered(about.upstream)
    version = _named(about)
    places.inner(about.words.text("path"))
    told = await about.upstream.version(version.name, version.version)
    shared = {one for key in about.facts.keys_of(told) for one in about.facts.versions_at(key)}
    return Plan(wants=tuple(about.want(one, "model.download") for one in sorted({version.resource, *shared})))


# -- the registry ----------------------------------------------------------------------------------------------------


def _named(about: About) -> Version:
    return Version(name=places.name(about.words.text("name")), version=places.version(about.words.text("version")))


def _of_told(told: Told) -> str:
    return f"model/{told.get('name')}@{told.get('version')}"


async def _model(about: About) -> Plan:
    return Plan(wants=(about.want(f"model/{places.name(about.words.text('name'))}"),))


async def _shown_model(about: About) -> Plan:
    return replace(await _model(about), trims=("model_versions", "registered_model.latest_versions"))


async def _models(_about: About) -> Plan:
    shown = Shown(items="registered_models", named=lambda item: f"model/{item.get('name')}")
    return Plan(shown=shown, trims=("latest_versions",))


async def _create_model(about: About) -> Plan:
    name = places.name(about.words.text("name"))
    # A name that the inventory holds already is decided as what it is, never as something new.
    known = bool(about.facts.current(f"model/{name}"))
    if not known and name == about.registry.name:
        raise RefusedError("this name stands for the registry itself")

    def learns(_told: Told) -> tuple[Change, ...]:
        return (Change(name=f"model/{name}", set={"owner": about.subject}, like=NEW, kept=True),)

    wants = (about.want(f"model/{name}" if known else f"model/{about.registry.name}"),)
    return Plan(wants=wants, learns=None if known else learns)


async def _versions(_about: About) -> Plan:
    return Plan(shown=Shown(items="model_versions", named=_of_told))


async def _version(about: About) -> Plan:
    return Plan(wants=(about.want(_named(about).resource),))


async def _create_version(about: About) -> Plan:
    await about.facts.gathered(about.upstream)
    wants = [about.want(f"model/{places.name(about.words.text('name'))}")]
    source = places.source(about.words.text("source"))
    if isinstance(source, Place):
        wants += await _bytes(about, source, "read")
    elif isinstance(source, Version):
        wants.append(about.want(source.resource, "model.download"))
    else:  # a bucket, a file: nobody here can say whose it is
        wants.append(about.want(about.server, "workspace.manage"))
    if model := about.words.optional("model_id"):
        wants += await _bytes(about, Place(of=places.logged(model)), "read")
    if run := about.words.optional("run_id"):
        home = await about.upstream.experiment_of_run(places.run(run))
        wants.append(about.want(about.of("run", home), "run.read"))
    return Plan(
        wants=tuple({(want.action, want.resource): want for want in wants}.values()),
        learns=lambda told: (about.facts.created(told["model_version"]),),
    )


async def _delete_version(about: About) -> Plan:
    version = _named(about).resource

    def learns(_told: Told) -> tuple[Change, ...]:
        about.facts.deleted((version,))
        return ()

    return Plan(wants=(about.want(version),), first=about.facts.forget((version,)), learns=learns)


async def _delete_model(about: About) -> Plan:
    name = places.name(about.words.text("name"))
    told = await about.upstream.ask("model-versions/search", {"filter": f"name='{name}'", "max_results": 100_000})
    versions = [_of_told(one) for one in told.get("model_versions", ())]

    def learns(_told: Told) -> tuple[Change, ...]:
        about.facts.deleted(versions)
        return ()

    wants = tuple(about.want(one) for one in (f"model/{name}", *versions))
    return Plan(wants=wants, first=about.facts.forget(versions), learns=learns)


async def _stage(about: About) -> Plan:
    version, stage = _named(about), about.words.text("stage")
    if about.words.values.get("archive_existing_versions") not in {None, False}:
        raise RefusedError(
            "`archive_existing_versions` changes versions that it does not name: archive them one by one"
        )
    action = "model.archive" if stage.casefold() == "archived" else "model.promote"
    change = Change(name=version.resource, set={"stage": stage.casefold()})
    return Plan(wants=(about.want(version.resource, action, alias=stage),), learns=lambda _told: (change,))


async def _by_alias(about: About) -> Plan:
    places.name(about.words.text("name"))
    about.words.text("alias")
    return Plan(names=lambda told: about.want(_of_told(told["model_version"]), alias=about.words.text("alias")))


async def _holder(about: About, name: str, alias: str) -> str:
    """Return the version that an alias names now; empty: none."""
    try:
        return await about.upstream.version_at(name, alias)
    except RefusedError:
        return ""


def _losing(about: About, name: str, version: str, alias: str) -> Want:
    action = "model.tag" if alias in about.registry.plain_aliases else "model.undeploy"
    return about.want(Version(name=name, version=version).resource, action, alias=alias)


async def _set_alias(about: About) -> Plan:
    version, alias = _named(about), about.words.text("alias")
    action = "model.tag" if alias in about.registry.plain_aliases else "model.promote"
    wants = [about.want(version.resource, action, alias=alias)]
    before = await _holder(about, version.name, alias)
    if before not in {"", version.version}:
        # Who may promote in dev must not take `champion` away from the version that serves in prod.
        wants.append(_losing(about, version.name, before, alias))
    return Plan(wants=tuple(wants), learns=lambda _told: about.facts.named(version.name, alias, version.version))


async def _delete_alias(about: About) -> Plan:
    name, alias = places.name(about.words.text("name")), about.words.text("alias")
    before = await _holder(about, name, alias)
    if not before:
        raise RefusedError("no version has this alias", tell=False)
    return Plan(wants=(_losing(about, name, before, alias),), learns=lambda _told: about.facts.named(name, alias, ""))


def _all(names: Iterable[str], meaning: Meaning) -> dict[str, Meaning]:
    return dict.fromkeys(names, meaning)


_EXPERIMENT_ROWS: Final = ("get", "delete", "restore", "update", "set_tag", "delete_tag")
_RUN_ROWS: Final = (
    *("get", "update", "delete", "restore", "set_tag", "delete_tag", "log_metric", "log_parameter", "log_batch"),
    *("log_model", "log_inputs", "outputs", "metric_history", "metric_history_interval", "metric_history_bulk"),
)
_LOGGED_ROWS: Final = ("get", "finalize", "delete", "params", "set_tags", "delete_tag")

MEANINGS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        **_all((f"experiments.{one}" for one in _EXPERIMENT_ROWS), _experiment),
        **_all(("experiments.search", "experiments.search_get"), _experiments),
        "experiments.create": _create_experiment,
        "experiments.get_by_name": _experiment_by_name,
        **_all((f"runs.{one}" for one in _RUN_ROWS), _run),
        "runs.create": _create_run,
        **_all(("runs.search", "logged.search"), _in_experiments),
        **_all((f"logged.{one}" for one in _LOGGED_ROWS), _logged),
        "logged.create": _create_logged,
        **_all(("artifacts.read", "artifacts.write", "artifacts.delete", "artifacts.presign"), _at_path),
        "artifacts.list": _at_query,
        **_all(("mpu.create", "mpu.complete", "mpu.abort"), _in_parts),
        **_all(("runs.artifacts_list", "bytes.run"), _of_run),
        **_all(("logged.artifacts", "bytes.logged"), _of_logged),
        "bytes.version": _of_version,
        **_all(("models.update", "models.set_tag", "models.delete_tag"), _model),
        **_all(("models.get", "models.latest", "models.latest_post"), _shown_model),
        "models.search": _models,
        "models.create": _create_model,
        "models.delete": _delete_model,
        "models.by_alias": _by_alias,
        "models.set_alias": _set_alias,
        "models.delete_alias": _delete_alias,
        **_all((f"versions.{one}" for one in ("get", "update", "set_tag", "delete_tag", "download_uri")), _version),
        "versions.search": _versions,
        "versions.create": _create_version,
        "versions.delete": _delete_version,
        "versions.stage": _stage,
    }
)
"""By a row's name, without the prefix that tells `/api` from `/ajax-api`."""


def meaning_of(row: Row) -> Meaning:
    """Return what a row asks.

    Raises:
        KeyError: Nobody said.
    """
    return MEANINGS[row.name.partition(".")[2]]


def narrowed(words: Words, key: str, allowed: Iterable[str]) -> bytes:
    """Return the body with only those of a list that are granted."""
    return json.dumps({**words.values, key: list(allowed)}).encode()
