"""What every part of the JSON contract shares. Units are in the names; every number is finite."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION: Literal[1] = 1


class Model(BaseModel):
    """Frozen; unknown fields are kept, so that older readers lose nothing."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class Tool(Model):
    """Who wrote the file."""

    name: str = "snat_race"
    version: str


class Result(Model):
    """What all kinds of result share. ``run_id``: of this one run, whatever the file is called."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    tool: Tool
    started_at: str
    elapsed_s: float
    environment: dict[str, Any]
    spec: dict[str, Any]
