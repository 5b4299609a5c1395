"""Which sinks this process of a PDP brings its decision log to, as the configuration says."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from pdp import __version__
from pdp.adapters.audit_cursors import Cursors
from pdp.adapters.audit_file import RECEIVED
from pdp.adapters.audit_sinks import LineSink, OtlpSink, file_sink
from pdp.adapters.mask_key import mask_key
from pdp.audit.export import Mask, masked, ocsf
from pdp.config import Config, Sink
from pdp.server.place import Place
from pdp.service.audit import AuditTrail
from pdp.service.audit_sinks import Shape, SinkFollower, Source

_UNREADABLE: Final = (KeyError, TypeError, AttributeError, ValueError)


def followers(config: Config, place: Place, trail: AuditTrail) -> tuple[SinkFollower, ...]:
    """Return what brings each configured sink this process's chains; the first worker brings what sidecars sent, too.

    Raises:
        ConfigError: a file that a sink needs cannot be read.
    """
    own = place.audit(config.audit_dir)
    sources = [Source(directory=own, until=lambda chain: trail.link.n if chain == trail.name else sys.maxsize)]
    if place.index == 0:
        sources.append(Source(directory=config.audit_dir / RECEIVED, until=lambda _chain: sys.maxsize))
    return tuple(
        SinkFollower(
            name=sink.name,
            sink=_made(sink, config, place),
            sources=sources,
            cursor=Cursors(own, sink.name),
            shape=shape(sink),
        )
        for sink in config.audit.sinks
    )


def shape(sink: Sink) -> Shape:
    """Return what `sink` is shown of a record: masked before anything else.

    Raises:
        ConfigError: its key cannot be read.
    """
    key, masks = mask_key(sink.mask_key), frozenset(map(Mask, sink.mask))

    def shown(chain: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
        decision = record.get("kind") == "decision"
        if sink.form == "ocsf" and not decision:
            return None
        try:
            made = masked(record, masks, key)
            return ocsf(made, chain) if sink.form == "ocsf" else made
        except _UNREADABLE:
            # A sidecar may ship what only looks like a decision; it must not stop those behind it, nor show what it names.
            return {"kind": "unreadable", "chain": chain, "n": record.get("n")}

    return shown


def _made(sink: Sink, config: Config, place: Place) -> LineSink | OtlpSink:
    if sink.to == "otlp":
        service = {"service.name": "portcullis", "service.version": __version__}
        named = {"service.namespace": config.tenant, "service.instance.id": place.chain}
        return OtlpSink(sink.url, service=service | named, ca=sink.ca, authorization=sink.authorization_file)
    return file_sink(sink.path) if sink.path is not None else LineSink()
