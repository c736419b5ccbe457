"""Presets on the Hugging Face Hub, as KerasHub has them: `hf://user/name`."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from l2l_keras.presets import io, model_card

PREFIX = "hf://"


def download(handle: str) -> pathlib.Path:
    """Returns the folder of a preset of the hub, in the cache of `huggingface_hub`.

    Files are downloaded if they are not there, or have changed; without network, those that are
    there are taken.

    Args:
        handle: `hf://user/name`.

    Raises:
        ValueError: If the handle is not of this form, or there is no such preset.
        ImportError: If `huggingface_hub` is not installed.
        OSError: If it cannot be downloaded.
    """
    first, *others = io.FILES
    with _explained("download", handle) as huggingface_hub:
        repository = handle.removeprefix(PREFIX)
        folder = pathlib.Path(huggingface_hub.hf_hub_download(repository, first)).parent
        for file in others:  # Of the same commit, after which the cache names its folders.
            huggingface_hub.hf_hub_download(repository, file, revision=folder.name)
    return folder


def upload_preset(uri: str, preset: str | os.PathLike[str]) -> None:
    """Uploads a preset to the Hugging Face Hub, where a repository is made for it if there is none.

    Its README.md, which the hub shows, is generated from the card and says how to load the preset.
    One that you have written, in the folder or on the hub, is kept. Log in first
    (`hf auth login`). Nothing but the preset's own files is uploaded.

    Args:
        uri: Where to: `hf://user/name`, or `hf://name` for your own account.
        preset: Path of the folder that `LearnedOptimizer.save_to_preset` wrote.

    Raises:
        ValueError: If `uri` is not of this form, or the folder is no preset.
        ImportError: If the package `huggingface_hub` is not installed.
        OSError: If it cannot be uploaded.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> l2l_keras.LearnedOptimizer(rule).save_to_preset("my_rule")
        >>> l2l_keras.upload_preset("hf://user/my_rule", "my_rule")  # doctest: +SKIP
    """
    if not uri.startswith(PREFIX):
        raise ValueError(f"`uri` must be {PREFIX}user/name. Received: uri={uri!r}")
    folder = pathlib.Path(preset)
    rule, card = io.read(folder, os.fspath(preset))
    with _explained("upload", uri) as huggingface_hub:
        api = huggingface_hub.HfApi()
        repository = api.create_repo(uri.removeprefix(PREFIX), exist_ok=True).repo_id
        contents = {file: (folder / file).read_bytes() for file in io.FILES}
        readme = model_card.own(folder)
        if readme is None and not _has_own_card(huggingface_hub, repository):
            readme = model_card.render(card, rule, PREFIX + repository)
        if readme is not None:
            contents[model_card.FILE] = readme.encode()
        api.create_commit(
            repository,
            [huggingface_hub.CommitOperationAdd(*content) for content in contents.items()],
            commit_message="Upload a preset of l2l_keras",
        )


def _has_own_card(huggingface_hub: Any, repository: str) -> bool:
    """Returns whether someone has written the repository's README.md."""
    try:
        path = huggingface_hub.hf_hub_download(repository, model_card.FILE)
    except huggingface_hub.errors.EntryNotFoundError:
        return False
    return model_card.own(pathlib.Path(path).parent) is not None


@contextlib.contextmanager
def _explained(what: str, handle: str) -> Iterator[Any]:
    """Yields the library, whose errors become those of this package, of one line each."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ImportError(
            f"To {what} a preset needs the package huggingface_hub: pip install huggingface_hub. "
            f"Received: {handle!r}"
        ) from error
    try:
        yield huggingface_hub
    except errors.HFValidationError as error:
        raise ValueError(
            f"A preset on the Hugging Face Hub must be {PREFIX}user/name. Received: {handle!r}"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            "A preset on the Hugging Face Hub must be in a public repository, or in one of your "
            f"account after `hf auth login`. Received: {handle!r}, which is not found"
        ) from error
    except Exception as error:  # Of its HTTP library, which depends on its version, or its own.
        reason = " ".join(str(error).split())
        raise OSError(f"Could not {what} the preset {handle!r}: {reason}") from error
