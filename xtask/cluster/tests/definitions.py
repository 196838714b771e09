"""Checks objects of the Prometheus Operator against its own definitions: definitions.py DEFINITIONS MANIFESTS; unknown fields are mistakes."""

import pathlib
import sys

import jsonschema
import yaml


def strict(schema):
    """The schema, in which an object has no fields but those that it names."""
    if isinstance(schema, dict):
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        for part in schema.values():
            strict(part)
    elif isinstance(schema, list):
        for part in schema:
            strict(part)
    return schema


schemas = {}
for path in pathlib.Path(sys.argv[1]).iterdir():
    for definition in yaml.safe_load_all(path.read_text()):
        spec = definition["spec"]
        schemas[spec["names"]["kind"]] = strict(spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"])

for path in sys.argv[2:]:
    for manifest in yaml.safe_load_all(pathlib.Path(path).read_text()):
        if manifest["kind"] in schemas:
            jsonschema.Draft4Validator(schemas[manifest["kind"]]).validate(manifest["spec"])
            print("valid", manifest["kind"], path)
