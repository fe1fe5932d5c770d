"""What every part of the JSON contract shares. Units are in the names; every number is finite."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[2] = 2


class Model(BaseModel):
    """Frozen; unknown fields are kept, so that older readers lose nothing.

    The string below a field is its description in the JSON Schema.
    """

    model_config = ConfigDict(
        frozen=True, extra="allow", allow_inf_nan=False, use_attribute_docstrings=True
    )


class Tool(Model):
    """Who wrote the file."""

    name: str = "snat_race"
    """Name of the program."""
    version: str
    """Version of the program."""


class Result(Model):
    """What all kinds of result share."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Version of this contract; files of version 1 are upgraded on reading."""
    run_id: str
    """Identifies this one run, whatever the file is called."""
    tool: Tool
    """Program that wrote the file."""
    started_at: str
    """When the run began: UTC, ISO 8601."""
    elapsed_s: float
    """Length of the run in seconds."""
    environment: dict[str, Any]
    """Machine and kernel that it ran on."""
    spec: dict[str, Any]
    """Settings of the run, as given or worked out."""
