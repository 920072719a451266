"""Evaluates one flag of each type with the OpenFeature SDK; prints the details as JSON.

Usage: client.py <base URL> <host of the tenant>
"""

import dataclasses
import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext

base, host = sys.argv[1:]
api.set_provider(OFREPProvider(base, headers_factory=lambda: {"Host": host}))
client = api.get_client()
context = EvaluationContext("u-7", {"beta": True})

found = {
    "boolean": client.get_boolean_details("new-dashboard", False, context),
    "string": client.get_string_details("theme", "none", context),
    "integer": client.get_integer_details("page-size", 1, context),
    "float": client.get_float_details("sampling", 0.5, context),
    "object": client.get_object_details("export-limits", {}, context),
    "targeted": client.get_boolean_details("beta-only", False, context),
    "missing": client.get_boolean_details("nothing", True, context),
    "mistyped": client.get_boolean_details("theme", True, context),
}
print(json.dumps({name: dataclasses.asdict(details) for name, details in found.items()}))
