"""What every part of the JSON contract shares. Units are in the names; every number is finite."""

import ast
import inspect
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from textwrap import dedent
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

SCHEMA_VERSION: Literal[2] = 2

_MOST = 10**20
"""More than any counter of 64 bits; what is derived of so much is still a finite float."""
_LONGEST_S = 1e10  # three centuries
_DEEPEST = 32  # nesting of free-form values


def _is_instant(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _is_sane(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Check a value of a free form: numbers are finite and no longer than 64 bits."""
    if depth > _DEEPEST:
        raise ValueError("is nested too deeply")
    if isinstance(value, int | float) and not abs(value) < 1 << 64:
        raise ValueError("holds a number beyond all sense")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _is_sane(part, depth + 1)
    return value


Count = Annotated[int, Field(ge=0, le=_MOST)]
"""How many, or how many ns."""
Amount = Annotated[float, Field(ge=0, le=_MOST)]
"""A number of something that is no whole number."""
Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S)]
"""A length of time."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole."""
Instant = Annotated[str, AfterValidator(_is_instant)]
"""UTC, ISO 8601."""
Facts = Annotated[dict[str, Any], AfterValidator(_is_sane)]
"""What the contract does not name, by name."""
Values = Annotated[dict[str, int | float | str], AfterValidator(_is_sane)]
"""Numbers and names that a sentence needs, by name."""


class Model(BaseModel):
    """Frozen; unknown fields are kept, so that older readers lose nothing.

    The string below a field is its description in the JSON Schema.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the fields.

        pydantic can do that too (``use_attribute_docstrings``), but it reads the sources whenever a class
        is made: 55 ms at each start of the program. Here it is done only for those who ask for the schema.
        """
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        for name, description in _descriptions(cls):
            schema["properties"][name]["description"] = description
        return reference


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
    started_at: Instant
    """When the run began: UTC, ISO 8601."""
    elapsed_s: Seconds
    """Length of the run in seconds."""
    environment: Facts
    """Machine and kernel that it ran on."""
    spec: Facts
    """Settings of the run, as given or worked out."""


def _descriptions(model: type[Model]) -> Iterator[tuple[str, str]]:
    """Yield each field of a model, and of those that it is based on, with the string below it."""
    for base in model.__mro__:
        if not issubclass(base, Model):
            continue
        (definition,) = ast.parse(dedent(inspect.getsource(base))).body
        for field, below in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ()):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    yield name, inspect.cleandoc(text)
