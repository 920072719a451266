"""Greets every request, stops some, and routes those that ask for a region.

Everything that a policy may see and do stands in wit/policy.wit.
"""

from wit_world.exports.request_hook import (
    Decision,
    Decision_Continue,
    Decision_Respond,
    Decision_Route,
)
from wit_world.imports import config, request, tenant
from wit_world.imports.types import Content_Text, LocalResponse, Target_Region


class RequestHook:
    def on_request(self) -> Decision:
        """What is raised means that the policy failed; `on_failure` says what happens then."""
        if request.header("x-say") == "stop":
            return Decision_Respond(stopped())
        greeting = config.get("greeting") or "hello"
        request.set_header("x-greeting", f"{greeting}, {tenant.slug()}")
        region = request.header("x-region")
        # The host refuses a region outside the tenant's residency.
        if region in tenant.residency():
            return Decision_Route(Target_Region(region))
        return Decision_Continue()


def stopped() -> LocalResponse:
    return LocalResponse(
        status=403,
        headers=[("content-type", "text/plain")],
        body=Content_Text("stopped by my-policy\n"),
    )
