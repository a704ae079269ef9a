"""Quilt as it is used here: without usage metrics and without talk."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from cellcube.errors import DatasetAccessError, DatasetBusyError, DatasetError, MissingDependencyError
from cellcube.urls import options_for


def default_registry() -> str:
    """URL of the local registry that Quilt is set up with."""
    from quilt3.util import get_from_config

    return str(get_from_config("default_local_registry"))


@contextmanager
def quilt_client(storage_options: Mapping[str, Any] | None, progress: bool) -> Iterator[Any]:
    """Quilt without usage metrics and without talk; its failures, and those of S3, are errors of cellcube."""
    metrics = os.environ.get("QUILT_DISABLE_USAGE_METRICS")
    os.environ["QUILT_DISABLE_USAGE_METRICS"] = "true"
    try:
        import quilt3
        from quilt3 import data_transfer, packages, telemetry, util
        from quilt3.hooks import get_build_s3_client_hook, set_build_s3_client_hook
    except ImportError as error:
        raise MissingDependencyError(
            f"Quilt packages need quilt3: {error}", remedy='Install it: pip install "cellcube[quilt]".'
        ) from error
    finally:
        if metrics is None:
            del os.environ["QUILT_DISABLE_USAGE_METRICS"]
        else:
            os.environ["QUILT_DISABLE_USAGE_METRICS"] = metrics
    from botocore.exceptions import BotoCoreError, ClientError

    sender = telemetry.ApiTelemetry
    before = (sender.telemetry_disabled, packages.DISABLE_TQDM, data_transfer.DISABLE_TQDM)
    hook = get_build_s3_client_hook()
    sender.telemetry_disabled = True
    packages.DISABLE_TQDM = data_transfer.DISABLE_TQDM = not (progress and sys.stderr.isatty())
    if storage_options:
        set_build_s3_client_hook(_client_hook(storage_options))
    try:
        with redirect_stdout(StringIO()):
            yield quilt3
    except util.QuiltConflictException as error:
        raise DatasetBusyError(
            "Somebody else has pushed to the package in the meantime.", remedy="Call again, to follow their revision."
        ) from error
    except util.QuiltException as error:
        raise DatasetError(f"Quilt: {error}") from error
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        told = "There is no such bucket" if code in ("NoSuchBucket", "404") else "S3 refused"
        raise DatasetAccessError(f"{told}: {error}", remedy="Check the registry and the credentials.") from error
    except (BotoCoreError, data_transfer.S3NoValidClientError) as error:
        raise DatasetAccessError(f"S3: {error}", remedy="Check the registry and the credentials.") from error
    finally:
        sender.telemetry_disabled, packages.DISABLE_TQDM, data_transfer.DISABLE_TQDM = before
        set_build_s3_client_hook(hook)


def _client_hook(storage_options: Mapping[str, Any]) -> Any:
    """How Quilt makes clients of S3, with options of fsspec."""
    options = options_for("s3://", storage_options)
    names = {"key": "aws_access_key_id", "secret": "aws_secret_access_key", "token": "aws_session_token"}
    given = {known: options[name] for name, known in names.items() if options.get(name)}
    given |= {
        name: options[name] for name in ("endpoint_url", "region_name", "verify") if options.get(name) is not None
    }
    given |= dict(options.get("client_kwargs") or {})

    def hook(build: Any, session: Any, client: dict[str, Any], **others: Any) -> Any:
        if options.get("anon"):
            from botocore import UNSIGNED

            client = {**client, "config": client["config"].merge(type(client["config"])(signature_version=UNSIGNED))}
        elif given.get("aws_access_key_id"):
            from botocore.config import Config

            client = {**client, "config": Config(max_pool_connections=client["config"].max_pool_connections)}
        return build(session, {**client, **given}, **others)

    return hook
