"""A client's folder: which file is where, and its settings.

client.toml        settings (`ClientSettings`)
policy.toml        what the owner allows (`policy.Policy`)
identity.pem       Ed25519 protocol identity, private (0600)
identity.json      its public card, for the federation's signer
tls/               address, CA, certificate and key of the session with the coordinator
membership.json    the signed membership list that the owner has accepted
ledger.jsonl       the privacy ledger
anchor.json        the newest place of the ledger that the coordinator gave back
jobs.jsonl         jobs accepted
answers.jsonl      model versions answered on
residuals/         what open jobs that feed back have not sent yet (0600 each)
ontology/          ontology versions by hash
paused.json        there while the owner has paused the client
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator

from lepton_client.journal import write_private
from lepton_client.policy import Policy, load_policy, load_toml
from lepton_client.watched import Watched
from lepton_core.errors import FaultError, InputError
from lepton_core.identity import IdentityKey, fingerprint
from lepton_core.ids import require_name
from lepton_core.ports import Clock
from lepton_core.settings import Settings, parse_settings


class ClientSettings(Settings):
    """`client.toml`."""

    #: The owner's enrolled name.
    owner: str
    #: The policy's file, relative to the folder.
    policy: str = "policy.toml"
    #: Threads that training may use.
    training_threads: int = Field(default=1, ge=1, le=256)
    #: Memory that training may take, in MiB, of which torch itself needs about 250; None sets no bound.
    training_memory_mib: int | None = Field(default=None, ge=512, le=2**24)
    #: Longest that one round's training may take.
    training_deadline_s: float = Field(default=600.0, gt=0.0)

    @field_validator("owner")
    @classmethod
    def _check_owner(cls, value: str) -> str:
        try:
            return require_name(value, "owner name")
        except InputError as error:
            raise ValueError(f"{error.message}: {error.expected}") from None


@dataclass(frozen=True)
class Home:
    """The places of a client's folder."""

    folder: Path

    @property
    def settings(self) -> Path:
        """Settings file."""
        return self.folder / "client.toml"

    @property
    def identity(self) -> Path:
        """Private protocol identity."""
        return self.folder / "identity.pem"

    @property
    def card(self) -> Path:
        """Public card of the identity."""
        return self.folder / "identity.json"

    @property
    def tls(self) -> Path:
        """Credentials of the session (`lepton_protos.channel`)."""
        return self.folder / "tls"

    @property
    def membership(self) -> Path:
        """Accepted membership list."""
        return self.folder / "membership.json"

    @property
    def ledger(self) -> Path:
        """Privacy ledger."""
        return self.folder / "ledger.jsonl"

    @property
    def anchor(self) -> Path:
        """Anchor that the coordinator gave back."""
        return self.folder / "anchor.json"

    @property
    def jobs(self) -> Path:
        """Accepted jobs."""
        return self.folder / "jobs.jsonl"

    @property
    def answers(self) -> Path:
        """Answered model versions."""
        return self.folder / "answers.jsonl"

    @property
    def residuals(self) -> Path:
        """What of updates was not sent yet, by job."""
        return self.folder / "residuals"

    @cached_property
    def paused(self) -> Path:
        """There while the client is paused."""
        return self.folder / "paused.json"

    @property
    def ontologies(self) -> Path:
        """Cache of ontology versions."""
        return self.folder / "ontology"

    def policy(self, settings: ClientSettings) -> Path:
        """Policy file."""
        return self.folder / settings.policy


def load_settings(home: Home) -> ClientSettings:
    """The client's settings.

    Raises:
        InputError: the folder is no client's.
        SettingsError: every problem of `client.toml`.
    """
    if not home.settings.is_file():
        raise InputError(
            "no client lives here",
            where=str(home.folder),
            expected="a folder that `lepton client enrol` made",
            got="client.toml is missing",
            hint="enrol first with the invitation file from the coordinator's operator",
        )
    return parse_settings(ClientSettings, load_toml(home.settings), source=str(home.settings))


def load_home_policy(home: Home, settings: ClientSettings) -> Policy:
    """The owner's policy, whose mappings' paths are relative to the policy's own folder.

    Raises:
        InputError: no such file.
        SettingsError: every problem of it.
    """
    return load_policy(home.policy(settings))


def watch_home_policy(home: Home, settings: ClientSettings, clock: Clock | None = None) -> Watched[Policy]:
    """The owner's policy as its file says at each call of `current`, which raises as `load_home_policy` does."""
    return Watched(home.policy(settings), lambda: load_home_policy(home, settings), clock)


def load_identity(home: Home) -> IdentityKey:
    """The owner's protocol identity.

    Raises:
        InputError: there is none.
        IdentityError: the file holds no Ed25519 key.
    """
    try:
        return IdentityKey.from_pem(home.identity.read_bytes())
    except OSError as error:
        raise InputError(
            "the protocol identity cannot be read",
            where=str(home.identity),
            got=error.strerror or "",
            hint="restore identity.pem from its backup, or enrol anew as another member",
        ) from None


def save_identity(home: Home, identity: IdentityKey, owner: str) -> None:
    """Write the private key (0600) and the public card that the federation's signer needs.

    Raises:
        FaultError: the disk.
    """
    write_private(home.identity, identity.to_pem())
    card = {
        "owner": owner,
        "member": identity.member.hex(),
        "identity": identity.public.hex(),
        "fingerprint": fingerprint(identity.public),
    }
    _write(home.card, json.dumps(card, indent=2) + "\n")


def save_settings(home: Home, owner: str) -> None:
    """Write `client.toml` for a new client; an existing one stays as it is.

    Raises:
        FaultError: the disk.
    """
    if not home.settings.exists():
        _write(home.settings, f'owner = "{owner}"\npolicy = "policy.toml"\n')


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FaultError("cannot write a file of the client", where=str(path), got=error.strerror or "") from None
