"""`pdp keys`: the keys of a PDP, and the root file that says what each may sign."""

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from pdp.adapters.keys_files import ensure_key, key_path, load_key, load_root, new_key, succeed_root, write_key
from pdp.cli.options import AsJson, instant_text, noun
from pdp.cli.output import write_json, write_line, write_table
from pdp.cli.settings import ConfigFile, StateDir, configuration
from pdp.errors import BadRequestError, ConfigError
from pdp.trust.keys import PublicKey, Role, RootFile, Ruling, SigningKey, sign_root

app = noun("Keys: make this PDP's, rotate them, see which count.")

RootKeys = Annotated[
    list[Path],
    typer.Option(
        "--root-key", metavar="FILE", help="A root key, from where it is kept; repeat it to reach the threshold."
    ),
]
_ONLINE: Final = (Role.PUBLISH, Role.TIMESTAMP)
_SHORT: Final = 16


@app.command()
def init(
    *,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A copy of root.json: taken if there is none here, or if it is the next one."
        ),
    ] = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make this PDP's publish and timestamp keys, if it has none, and print what `pdp keys rotate --add` needs.

    With `--root` it may run before every start: an older root file than the one held is never taken, since retired keys
    would count again.

    Example: `pdp keys init --state-dir /var/lib/portcullis`
    """
    directory = configuration(config, {("state_dir",): state_dir}).state_dir
    made = {role: ensure_key(directory, role).public.public.hex() for role in _ONLINE}
    if as_json:
        write_json({role.value: public for role, public in made.items()})
    else:
        for role, public in made.items():
            write_line(f"--add {role.value}:{public}")
    if root is not None:
        _take_root(directory, root)


def _take_root(directory: Path, file: Path) -> None:
    """Hold the root file in `file`, unless what is held is as new; a gap is left to the store, which has every version.

    Raises:
        ConfigError: It cannot be read, or is the next by number and not by signature.
    """
    try:
        offered = RootFile.parse(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"`{file}`: {error.strerror}", advice="copy root.json from where `pdp init` ran") from error
    except BadRequestError as error:
        raise ConfigError(f"`{file}`: {error.message}", advice="copy root.json from where `pdp init` ran") from error
    current = load_root(directory)
    if current is not None and offered.version != current.version + 1:
        return
    if current is not None and not offered.succeeds(current):
        raise ConfigError(f"`{file}`: not signed by the root keys of the one held", advice="look at who wrote it")
    succeed_root(directory, offered)


@app.command("new-root")
def new_root(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; it must not be there yet.")],
) -> None:
    """Make a root key, to be named in the root file with `pdp keys rotate --new-root-key`, and kept offline.

    Two root keys in two hands are what `pdp break-glass` takes. Exit code 2 if the file is there already.

    Example: `pdp keys new-root /media/second/root.pem`
    """
    if file.exists():
        raise ConfigError(f"{file} is there already", advice="a root key is never overwritten; name another file")
    key = SigningKey.generate()
    write_key(file, key)
    write_line(f"{file}: root key {key.key_id[:_SHORT]}")


@app.command()
def show(*, state_dir: StateDir = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show the root file in force and every key it names; `here` marks those whose private half lies on this machine.

    Example: `pdp keys show --json | jq .digest`
    """
    directory = configuration(config, {("state_dir",): state_dir}).state_dir
    root = held(directory)
    rows = [row for role in Role for row in _shown(root, role, _here(directory))]
    if as_json:
        write_json({"tenant": root.tenant, "version": root.version, "digest": root.digest, "keys": rows})
        return
    write_line(f"root file {root.version} of tenant {root.tenant}, digest {root.digest}")
    headings = ("role", "key", "name", "until", "here")
    write_table(headings, [tuple(str(row[heading]) for heading in headings) for row in rows])


@app.command()
def rotate(
    *,
    root_key: RootKeys,
    new_root_key: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="The root keys from now on; without it they stay.")
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE:HEX", help="Another PDP's key, as its `pdp keys init` prints it."),
    ] = None,
    retire: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="End a publish or timestamp key, by the start of its id.")
    ] = None,
    until: Annotated[
        int, typer.Option(metavar="NUMBER", help="With --retire: the last entry that a publish key may have signed.")
    ] = 0,
    own: Annotated[
        bool, typer.Option("--own", help="Make new online keys for this PDP; the old ones stay valid.")
    ] = False,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Write the next root file, signed by the root keys of the old one and of the new.

    A running PDP takes it within seconds, tells its replicas, and shows it to the other PDPs over the same store. Exchange
    a key in two steps: `--own`, and when every PDP runs on version N+1, `--retire` the old one.

    Examples:
    `pdp keys rotate --root-key /media/root.pem --own`

    `pdp keys rotate --root-key /media/root.pem --retire 3fa9c1 --until 1042`
    """
    directory = configuration(config, {("state_dir",): state_dir}).state_dir
    old = held(directory)
    roles = {role: list(old.holders(role)) for role in Role}
    signing = [load_key(path) for path in root_key]
    if new_root_key:
        fresh = [load_key(path) for path in new_root_key]
        roles[Role.ROOT] = [key.public for key in fresh]
        signing += [key for key in fresh if key.key_id not in {known.key_id for known in signing}]
    for text in add or ():
        role, key = parse_public(text)
        roles[role].append(key)
    made = {role: SigningKey.generate() for role in _ONLINE} if own else {}
    for role, signer in made.items():
        roles[role].append(signer.public)
    for start in retire or ():
        _retire(roles, start, until, _here(directory) - {key.key_id for key in made.values()})
    root = next_root(old, roles=roles, signing=signing)
    for role, signer in made.items():
        new_key(directory, role, signer)
    succeed_root(directory, root)
    write_line(f"root file {root.version}, digest {root.digest}")


def held(directory: Path) -> RootFile:
    """Return the root file in force.

    Raises:
        ConfigError: there is none.
    """
    root = load_root(directory)
    if root is None:
        raise ConfigError(f"{directory} holds no root file", advice="copy root.json from another PDP, or `pdp init`")
    return root


def next_root(
    old: RootFile, *, roles: dict[Role, list[PublicKey]], signing: list[SigningKey], ruling: Ruling | None = None
) -> RootFile:
    """Return the successor of `old`.

    Raises:
        ConfigError: too few of the root keys that both files name have signed.
    """
    try:
        root = sign_root(
            tenant=old.tenant,
            version=old.version + 1,
            time_ms=max(old.time_ms, time.time_ns() // 1_000_000),
            roles=roles,
            signing=signing,
            thresholds={role: min(old.roles[role].threshold, len(roles[role])) for role in Role},
            ruling=ruling or old.ruling,
        )
    except BadRequestError as error:
        raise ConfigError(f"no valid root file: {error.message}", advice="give every root key it takes") from error
    if not root.succeeds(old):
        raise ConfigError(
            f"root file {old.version} does not know enough of these root keys",
            advice="give the keys of the root file in force with --root-key",
        )
    return root


def parse_public(text: str) -> tuple[Role, PublicKey]:
    """Return role and key of `ROLE:HEX`.

    Raises:
        BadRequestError: not that, or a root key, which only --new-root-key exchanges.
    """
    name, _, public = text.partition(":")
    try:
        role, key = Role(name), PublicKey(public=bytes.fromhex(public))
    except ValueError as error:
        raise BadRequestError(f"`{text}` is not `publish:HEX` or `timestamp:HEX`") from error
    if role is Role.ROOT:
        raise BadRequestError("root keys are exchanged with --new-root-key")
    return role, key


def _retire(roles: dict[Role, list[PublicKey]], start: str, until: int, here: set[str]) -> None:
    found = [(role, key) for role in _ONLINE for key in roles[role] if key.key_id.startswith(start)]
    if len(found) != 1:
        raise BadRequestError(f"{len(found)} online keys have an id that starts with `{start}`")
    role, key = found[0]
    if key.key_id in here:
        raise BadRequestError(f"`{start}` is this PDP's own key: `pdp keys rotate --own` first")
    roles[role].remove(key)
    if role is Role.PUBLISH:
        if until < 1:
            raise BadRequestError(
                "--until names the last entry that the key may have signed; `pdp log show` tells the head"
            )
        roles[role].append(
            PublicKey(public=key.public, name=key.name, not_before_ms=key.not_before_ms, until_seq=until)
        )


def _here(directory: Path) -> set[str]:
    return {load_key(path).key_id for role in Role if (path := key_path(directory, role)).exists()}


def _shown(root: RootFile, role: Role, here: set[str]) -> list[dict[str, Any]]:
    return [
        {
            "role": role.value,
            "key": key.key_id[:_SHORT],
            "name": key.name,
            "until": f"entry {key.until_seq}" if key.until_seq else instant_text(key.not_after_ms),
            "here": "yes" if key.key_id in here else "",
        }
        for key in sorted(root.holders(role), key=lambda key: key.key_id)
    ]
